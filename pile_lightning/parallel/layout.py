"""How many ranks share what: the numbers of a parallel run, and the mesh that they make."""

from dataclasses import dataclass

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

__all__ = ["Layout"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Ranks = replicate x shard x tensor; neighbouring ranks are tensor-parallel peers.

    Example:
        >>> Layout(shard=4, tensor=2).num_ranks
        8
    """

    shard: int = 1
    """Ranks that parameters, gradients and optimizer state are spread over (FSDP2)."""
    replicate: int = 1
    """Groups of such ranks, each of which holds everything once: with one group a node, only
    gradients cross from node to node (hybrid sharding)."""
    tensor: int = 1
    """Ranks that split each layer's work (tensor parallelism): they get the same rows."""
    reshard: bool = True
    """Give a block's parameters back after its forward, and gather them again for its backward:
    less memory, half as much communication again."""
    cpu_offload: bool = False
    """Keep parameters, gradients and optimizer state in the memory of the host."""

    def __post_init__(self) -> None:
        for name in ("shard", "replicate", "tensor"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} ranks; choose at least 1")

    @property
    def num_ranks(self) -> int:
        """Ranks of the whole run."""
        return self.replicate * self.shard * self.tensor

    @property
    def num_row_ranks(self) -> int:
        """Ranks, or groups of tensor-parallel ranks, with rows of their own."""
        return self.replicate * self.shard

    @property
    def name(self) -> str:
        """What to call it.

        Example:
            >>> Layout(shard=4, tensor=2, replicate=2).name, Layout(replicate=8).name
            ('FSDP2 4 x tensor 2, 2 replicas', 'ddp 8')
        """
        if self.num_ranks == 1:
            return "single"
        if self.shard == 1 and self.tensor == 1:
            return f"ddp {self.replicate}"
        parts = [f"FSDP2 {self.shard}"] if self.shard > 1 else []
        parts += [f"tensor {self.tensor}"] if self.tensor > 1 else []
        replicas = f", {self.replicate} replicas" if self.replicate > 1 else ""
        kept = "" if self.reshard else ", kept whole"
        return " x ".join(parts) + replicas + kept + (", offloaded" if self.cpu_offload else "")

    def mesh(self, device_type: str) -> DeviceMesh:
        """Make the mesh (replicate, shard, tensor); a collective call of all ranks."""
        return init_device_mesh(
            device_type,
            (self.replicate, self.shard, self.tensor),
            mesh_dim_names=("replicate", "shard", "tensor"),
        )
