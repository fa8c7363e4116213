"""Models that train in one run, spread over ranks: each rank trains its own, on all rows."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

from pile_lightning.parallel.parts import parts_of_ranks

__all__ = ["SpreadStrategy", "check_spreads", "num_step_ranks"]


@runtime_checkable
class SpreadsMembers(Protocol):
    """A module of several models, of which a rank trains some."""

    def part_of_checkpoint(self, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a checkpoint holds of this rank's models."""

    def join_checkpoint(
        self, checkpoint: Mapping[str, Any], parts: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Return a checkpoint with the models of all ranks."""

    def without_others(self) -> AbstractContextManager[None]:
        """Be without the models of other ranks, which cannot be moved, meanwhile."""


def check_spreads(kind: type) -> None:
    """Refuse a module that is one model.

    Raises:
        ValueError: For one that is.
    """
    if not issubclass(kind, SpreadsMembers):
        raise ValueError(
            f"trainer.strategy spread trains each member of an Environment on one rank, and "
            f"{kind.__name__} is one model; use trainer.strategy ddp, or "
            f"pile_lightning.ShardedStrategy"
        )


class SpreadStrategy(DDPStrategy):
    """Train each member of an ``Environment`` on one rank, on all rows; ``spread`` for short.

    Which rank has which member follows from their sizes and couplings and the number of ranks; see
    ``pile_lightning.modules.environment``. No gradient is communicated: ranks tell one another who
    fails, and what is logged. Each member ends with the weights that it has in one process, bit for
    bit. Checkpoints are those of one process, and resume under ``ddp``, in one process, and on any
    number of ranks. When training has ended, a rank has its own members and the best; the
    checkpoint has all of them.

    Args:
        process_group_backend: nccl, gloo, or None for what fits the device.

    Example:
        >>> SpreadStrategy().distributed_sampler_kwargs
        {'num_replicas': 1, 'rank': 0}
    """

    def __init__(self, *, process_group_backend: str | None = None) -> None:
        super().__init__(process_group_backend=process_group_backend)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Say that each rank reads all rows."""
        return {"num_replicas": 1, "rank": 0}

    def connect(self, model: LightningModule) -> None:
        """Take a module of several models.

        Raises:
            ValueError: For another one, and for a precision that scales all models' losses as one.
        """
        check_spreads(type(model))
        if self.precision_plugin.precision == "16-mixed":
            raise ValueError(
                "trainer.precision 16-mixed scales the losses of all members as one, and under "
                "trainer.strategy spread no rank has them all; use bf16-mixed"
            )
        super().connect(model)

    @property
    def _members(self) -> SpreadsMembers:
        module = self.lightning_module
        assert isinstance(module, SpreadsMembers)
        return module

    def setup(self, trainer: Trainer) -> None:
        """Move this rank's models to its device and make the optimizer: nothing is shared."""
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        assert self.lightning_module is not None
        self.model = self.precision_plugin.convert_module(self.lightning_module)
        self.model_to_device()
        if trainer.state.fn == "fit":
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def model_to_device(self) -> None:
        """Move this rank's models to its device."""
        with self._members.without_others():
            super().model_to_device()

    def teardown(self) -> None:
        """Move this rank's models back to the host, and end what the strategy began."""
        connected = self.lightning_module is not None
        with self._members.without_others() if connected else nullcontext():
            super().teardown()

    # -- checkpoints: of the ordinary form, made of what the ranks hold ---------------------------

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save one file of all members, by rank 0."""
        part = self._members.part_of_checkpoint(checkpoint)
        parts = parts_of_ranks(part, self.root_device)
        if self.is_global_zero:
            whole = self._members.join_checkpoint(checkpoint, parts)
            self.checkpoint_io.save_checkpoint(whole, filepath, storage_options=storage_options)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load the weights of this rank's models; of others the shapes are compared."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = {
            name: torch.empty_like(value, device="meta")
            if name in own and own[name].is_meta
            else value
            for name, value in checkpoint["state_dict"].items()
        }
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the optimizer's state of this rank's models."""
        part = self._members.part_of_checkpoint(checkpoint)
        super().load_optimizer_state_dict(
            {**checkpoint, "optimizer_states": part["optimizer_states"]}
        )


StrategyRegistry.register(
    "spread", SpreadStrategy, description="Each member of an Environment on one rank"
)


def num_step_ranks(trainer: Trainer) -> int:
    """Return how many ranks share the rows of a step: 1 where each of them trains on all rows.

    Tensor-parallel peers, which read the same rows for one model, count as well.
    """
    return 1 if isinstance(trainer.strategy, SpreadStrategy) else trainer.world_size
