"""The usual ways in which so many ranks share a run: by rows, by shards, by features."""

from pile_lightning.parallel import Layout

__all__ = ["alternatives"]


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
