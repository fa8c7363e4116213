"""A decoder's size by one word: d4, d8, d24 say how deep, and width and heads follow.

One dial instead of three keeps the shape the same, so that what is learnt about a small network
holds for a large one. With an optimizer's ``base_width`` the learning rates follow as well.
"""

import re
from dataclasses import dataclass, field, replace

from pile_lightning.nn.decoder import DecoderConfig
from pile_lightning.nn.initialization import InitConfig

__all__ = ["SizedDecoderConfig", "depth_of", "width_at"]

HEAD_DIM = 128
WIDTH_A_LAYER = 64


def depth_of(size: str) -> int:
    """Return the number of layers that a size says.

    Raises:
        ValueError: For a word that is no size.

    Example:
        >>> depth_of("d12")
        12
    """
    match = re.fullmatch(r"d([1-9]\d{0,2})", size)
    if match is None:
        raise ValueError(f"size={size!r} is no size; choose d and a number of layers, such as d8")
    return int(match[1])


def width_at(depth: int) -> int:
    """Return the width of a decoder of ``depth`` layers: 64 a layer, in whole heads of 128.

    Source: Karpathy, nanochat, 2025.

    Example:
        >>> width_at(4), width_at(5), width_at(24)
        (256, 384, 1536)
    """
    return HEAD_DIM * -(-WIDTH_A_LAYER * depth // HEAD_DIM)


@dataclass(frozen=True, kw_only=True)
class SizedDecoderConfig(DecoderConfig):
    """A decoder whose layers, width and heads follow from one word.

    ==== ====== ====== ===== =======================================
    size layers width  heads parameters of the blocks
    ==== ====== ====== ===== =======================================
    d4   4      256    2     3.1 M
    d8   8      512    4     25 M
    d12  12     768    6     85 M
    d24  24     1536   12    679 M
    ==== ====== ====== ===== =======================================

    The embedding starts in proportion to 1 / width, which learning rates that hold for any width
    ask for.

    Raises:
        ValueError: For a word that is no size, or heads that are not those of the size.

    Example:
        >>> config = SizedDecoderConfig(size="d8")
        >>> config.num_layers, config.d_model, config.attention.num_heads
        (8, 512, 4)
    """

    size: str = "d4"
    """The letter d and the number of layers."""
    d_model: int = field(init=False)
    num_layers: int = field(init=False)
    init: InitConfig = field(default_factory=InitConfig.any_width)
    """How the weights start."""

    def __post_init__(self) -> None:
        depth = depth_of(self.size)
        width = width_at(depth)
        heads = width // HEAD_DIM
        own, unset = self.attention.num_heads, type(self.attention)().num_heads
        if own not in (heads, unset):
            raise ValueError(
                f"size={self.size!r} has {heads} heads and attention.num_heads={own}; leave "
                f"num_heads out, or take DecoderConfig"
            )
        # a frozen config is filled from within
        object.__setattr__(self, "d_model", width)
        object.__setattr__(self, "num_layers", depth)
        object.__setattr__(self, "attention", replace(self.attention, num_heads=heads))
        super().__post_init__()
