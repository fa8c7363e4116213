"""The layers of a network that are alike: compiled, sharded and recomputed one at a time."""

from collections.abc import Sequence

from torch import nn

__all__ = ["blocks_of"]


def blocks_of(network: nn.Module) -> Sequence[nn.Module]:
    """Return ``network.blocks`` where that is a ``ModuleList``, else the network as one block.

    Example:
        >>> len(blocks_of(nn.Linear(2, 2)))
        1
    """
    blocks = getattr(network, "blocks", None)
    return list(blocks) if isinstance(blocks, nn.ModuleList) else [network]
