"""A short causal convolution: each position's features, and shares of those just before it.

What followed a token the last time it came is the best guess of what follows it now. A layer of
attention finds it by keys that know what stood before them, which plain keys do not: two layers
have to learn that together (induction heads, Olsson et al., arXiv 2209.11895). With a share of the
key before, one layer does it, and learns it in a few hundred small steps.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pile_lightning.nn.cache import LayerCache
from pile_lightning.nn.recent import Recent

__all__ = ["ShortConv", "ShortConvConfig", "convolve"]

Part: TypeAlias = Literal["keys", "queries", "values", "inputs"]


@dataclass(frozen=True, kw_only=True)
class ShortConvConfig:
    """Where positions take shares of those before them, and of how many.

    Raises:
        ValueError: If the size is below 2, or nothing is convolved.

    Example:
        >>> config = ShortConvConfig(size=3)
        >>> [len(share) for share in config.build("keys", 8).shares], config.build("values", 8)
        ([8, 8], None)
    """

    size: int = 2
    """Positions that a convolution spans, its own among them."""
    keys: bool = True
    """Convolve keys: what a head finds by the token before, it takes what came next of."""
    queries: bool = False
    """Convolve queries as well (with keys and values: So et al., Primer, arXiv 2109.08668)."""
    values: bool = False
    """Convolve values as well."""
    inputs: bool = False
    """Convolve what each attention and each feed-forward layer reads (Allen-Zhu, Canon layers A and
    C, 2025)."""

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ValueError(
                f"size={self.size} of a convolution spans nothing but its own position; choose at "
                f"least 2, or no convolution"
            )
        if not (self.keys or self.queries or self.values or self.inputs):
            raise ValueError(
                "short_conv convolves neither keys, queries, values nor inputs; choose one of "
                "them, or no convolution"
            )

    def build(self, part: Part, width: int) -> "ShortConv | None":
        """Make the convolution of a part of so many features; ``None`` where there is none."""
        return ShortConv(width, size=self.size) if getattr(self, part) else None


class ShortConv(nn.Module):
    """A causal depthwise convolution, which starts as the identity and stays in its document.

    Args:
        width: Features.
        size: Positions that it spans, its own among them.

    Example:
        >>> conv = ShortConv(2, size=2)
        >>> _ = nn.init.ones_(conv.shares[0])
        >>> conv(torch.tensor([[[1.0, 1.0], [2.0, 0.0]]])).tolist()
        [[[1.0, 1.0], [3.0, 1.0]]]
    """

    def __init__(self, width: int, *, size: int) -> None:
        super().__init__()
        self.reach = size - 1
        """Positions before its own."""
        # of one before, of two before, and so on, each feature by feature
        self.shares = nn.ParameterList(torch.empty(width) for _ in range(self.reach))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put the shares back to where they start."""
        for share in self.shares:
            nn.init.zeros_(share)

    def forward(
        self, x: Tensor, position_ids: Tensor | None = None, recent: Recent | None = None
    ) -> Tensor:
        """Add to ``x`` (batch, seq, width) what each position takes of those before it.

        Args:
            x: The features.
            position_ids: Distance from the start of the document (batch or 1, seq); ``None`` for
                rows of one document. What was read before is of the same document in any case.
            recent: What was read before, to which ``x`` is added; ``None`` for nothing.
        """
        seq = x.shape[1]
        whole = x if recent is None else recent.add(x, keep=self.reach)
        whole = F.pad(whole, (0, 0, max(0, self.reach + seq - whole.shape[1]), 0))
        out = x
        for distance, share in enumerate(self.shares, start=1):
            # of tensor-parallel ranks each has the features of its own heads
            own = share.to_local() if isinstance(share, DTensor) else share
            end = whole.shape[1] - distance
            before = whole[:, end - seq : end]
            if position_ids is not None and recent is None:
                before = torch.where((position_ids >= distance)[:, :, None], before, 0.0)
            out = out + before * own.to(x.dtype)
        return out


def convolve(
    conv: ShortConv | None,
    x: Tensor,
    position_ids: Tensor | None,
    cache: LayerCache | None,
    name: str,
) -> Tensor:
    """Return ``conv`` of ``x``, or ``x`` where there is none; by ``name`` the cache knows which."""
    if conv is None:
        return x
    out: Tensor = conv(x, position_ids, None if cache is None else cache.recent[name])
    return out
