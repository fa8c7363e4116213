"""FSDP2, tensor parallelism, or both, by a few numbers, through Lightning's own strategy."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer

from pile_lightning.checkpoint.io import AtomicCheckpointIO
from pile_lightning.checkpoint.swap import standing
from pile_lightning.parallel.layout import Layout
from pile_lightning.parallel.optimizer_shards import room_for_optimizers
from pile_lightning.parallel.spread import gather, spread_like

__all__ = ["ShardedStrategy", "launched_ranks"]


class ShardedStrategy(ModelParallelStrategy):
    """Spread a network over ranks: ``replicate`` x ``shard`` x ``tensor`` of them.

    The numbers are those of :class:`Layout`. Checkpoints are those of every other strategy, and
    resume under any of them.

    Args:
        shard: Ranks that parameters, gradients and optimizer state are spread over; None for all
            that the other two leave.
        replicate: Groups of such ranks that each hold everything.
        tensor: Ranks that split each layer's work.
        reshard: Give a block's parameters back after its forward.
        cpu_offload: Keep parameters, gradients and optimizer state in the memory of the host.
        num_ranks: Ranks of the whole run; ``train.py`` and launchers such as torchrun and srun say
            it by themselves.
        save_sharded: Every rank saves its own part, into a directory; otherwise rank 0 saves one
            file.
        process_group_backend: nccl, gloo, or None for what fits the device.

    Raises:
        ValueError: For numbers that do not make the number of ranks.

    Example:
        >>> ShardedStrategy(shard=2, tensor=2).layout.num_ranks
        4
    """

    def __init__(
        self,
        *,
        shard: int | None = None,
        replicate: int = 1,
        tensor: int = 1,
        reshard: bool = True,
        cpu_offload: bool = False,
        num_ranks: int | None = None,
        save_sharded: bool = True,
        process_group_backend: str | None = None,
    ) -> None:
        if shard is None:
            shard = _rest(num_ranks, replicate=replicate, tensor=tensor)
        self.layout = Layout(
            shard=shard,
            replicate=replicate,
            tensor=tensor,
            reshard=reshard,
            cpu_offload=cpu_offload,
        )
        self.save_sharded = save_sharded
        self._meshes: dict[str, DeviceMesh] = {}
        super().__init__(
            data_parallel_size=replicate * shard,
            tensor_parallel_size=tensor,
            save_distributed_checkpoint=save_sharded,
            process_group_backend=process_group_backend,
        )

    @property
    def mesh(self) -> DeviceMesh:
        """The mesh (replicate, shard, tensor), made by the first call, which all ranks make."""
        device_type = self.root_device.type
        if device_type not in self._meshes:
            self._meshes[device_type] = self.layout.mesh(device_type)
        return self._meshes[device_type]

    def model_to_device(self) -> None:
        """Move the model to this rank's device, unless it is to stay with the host."""
        if not self.layout.cpu_offload:
            super().model_to_device()

    def teardown(self) -> None:
        """End what the strategy began, a save in the background as well."""
        super().teardown()
        self.checkpoint_io.teardown()

    # -- checkpoints: of the ordinary form, whose tensors may lie on several ranks ----------------

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Let the trainer restore optimizers by ``load_optimizer_state_dict``."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the module's state, sharded as it is."""
        state: dict[str, Any] = self.lightning_module.state_dict()
        return state

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state, sharded as it is, by the number of the parameter."""
        return optimizer.state_dict()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save a folder of every rank's parts, or one file of rank 0."""
        path = self.broadcast(str(filepath))
        if self.save_sharded and isinstance(self.checkpoint_io, AtomicCheckpointIO):
            self.checkpoint_io.save_shards(checkpoint, path)
            return
        checkpoint = gather(checkpoint)
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, path, storage_options=storage_options)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint of any strategy and any number of ranks.

        Of a folder each rank reads its own parts, into the parameters that are there.
        """
        path = self.broadcast(str(checkpoint_path))
        files = self.checkpoint_io
        if not (isinstance(files, AtomicCheckpointIO) and standing(Path(path)).is_dir()):
            whole: dict[str, Any] = files.load_checkpoint(path, weights_only=weights_only)
            return whole
        state: dict[str, Any] = {"state_dict": self.lightning_module.state_dict()}
        if self.optimizers:
            state["optimizer_states"] = room_for_optimizers(path, self.optimizers)
        return state | files.load_shards(state, path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give each rank its part of the weights."""
        own = self.lightning_module.state_dict()
        state = {
            name: spread_like(value, own[name]) if name in own else value
            for name, value in checkpoint["state_dict"].items()
        }
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give each rank its part of the optimizers' states."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                number: {
                    name: spread_like(value, parameters[number])
                    if isinstance(value, Tensor) and value.shape == parameters[number].shape
                    else value
                    for name, value in values.items()
                }
                for number, values in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})


def _rest(num_ranks: int | None, *, replicate: int, tensor: int) -> int:
    ranks = launched_ranks() if num_ranks is None else num_ranks
    if ranks is None:
        raise ValueError(
            "shard=None takes the ranks that replicate and tensor leave, and how many there are is "
            "not known here; give shard, or num_ranks (devices x num_nodes of the trainer)"
        )
    if ranks % (replicate * tensor):
        raise ValueError(
            f"{ranks} ranks are not a multiple of replicate={replicate} x tensor={tensor}; choose "
            f"divisors, or another number of devices"
        )
    return ranks // (replicate * tensor)


def launched_ranks() -> int | None:
    """Return the number of ranks that a launcher says (torchrun, srun, Lightning), or None."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return None
