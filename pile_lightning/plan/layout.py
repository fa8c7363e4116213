"""How the ranks of a run share the work: by rows, by shards of the weights, by features."""

from dataclasses import dataclass

__all__ = ["Layout", "alternatives"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A mesh of ranks (replicate, shard, tensor); the last are neighbours.

    Raises:
        ValueError: For a size below 1, or sharded replicas of ``ddp``.

    Example:
        >>> Layout(replicate=2, shard=4, tensor=2).name
        'FSDP2 4 x tensor 2, 2 replicas'
        >>> Layout(replicate=8).name, Layout().name
        ('ddp 8', 'single')
    """

    replicate: int = 1
    """Copies of the weights, each with rows of its own."""
    shard: int = 1
    """Ranks that share a copy's weights, gradients and optimizer state, each with its own rows."""
    tensor: int = 1
    """Ranks that share the features of the same rows."""
    reshard: bool = True
    """Give a block's weights back after its forward, and gather them again for its backward."""
    cpu_offload: bool = False
    """Keep weights, gradients and optimizer state in the memory of the host."""

    def __post_init__(self) -> None:
        for name, size in (
            ("replicate", self.replicate),
            ("shard", self.shard),
            ("tensor", self.tensor),
        ):
            if size < 1:
                raise ValueError(f"{name}={size} ranks cannot share anything; choose 1 or more")

    @property
    def num_ranks(self) -> int:
        """All ranks."""
        return self.replicate * self.shard * self.tensor

    @property
    def num_row_ranks(self) -> int:
        """Ranks, or groups of tensor-parallel ranks, with rows of their own."""
        return self.replicate * self.shard

    @property
    def name(self) -> str:
        """What to call it."""
        if self.num_ranks == 1:
            return "single"
        if self.shard == 1 and self.tensor == 1:
            return f"ddp {self.replicate}"
        parts = [f"FSDP2 {self.shard}"] if self.shard > 1 else []
        parts += [f"tensor {self.tensor}"] if self.tensor > 1 else []
        replicas = f", {self.replicate} replicas" if self.replicate > 1 else ""
        kept = "" if self.reshard else ", kept whole"
        return " x ".join(parts) + replicas + kept + (", offloaded" if self.cpu_offload else "")


def alternatives(num_ranks: int, *, ranks_per_node: int, tensor: int = 1) -> list[Layout]:
    """Return the usual ways in which so many ranks share a run, the simplest first.

    Args:
        num_ranks: All ranks.
        ranks_per_node: Ranks with fast links between them.
        tensor: Ranks over which features can be split; 1 for none.

    Example:
        >>> [layout.name for layout in alternatives(16, ranks_per_node=8)]
        ['single', 'ddp 16', 'FSDP2 8, 2 replicas', 'FSDP2 16']
        >>> [layout.name for layout in alternatives(16, ranks_per_node=8, tensor=8)][4:]
        ['tensor 8, 2 replicas', 'FSDP2 2 x tensor 8']
    """
    found = [Layout()]
    if num_ranks == 1:
        return found
    found.append(Layout(replicate=num_ranks))
    if ranks_per_node < num_ranks and num_ranks % ranks_per_node == 0 and ranks_per_node > 1:
        found.append(Layout(replicate=num_ranks // ranks_per_node, shard=ranks_per_node))
    found.append(Layout(shard=num_ranks))
    if tensor > 1 and num_ranks % tensor == 0:
        found.append(Layout(replicate=num_ranks // tensor, tensor=tensor))
        if num_ranks > tensor:
            found.append(Layout(shard=num_ranks // tensor, tensor=tensor))
    return found
