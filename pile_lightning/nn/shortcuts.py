"""Shortcuts from the embedded tokens to every block, past those before it.

A deep block sees the token only through what the blocks before have added to the stream. Added
again, the token costs next to nothing, and so do values that are projected from it.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from pile_lightning.nn.initialization import Linear, learned_scalars
from pile_lightning.nn.norms import RMSNorm

__all__ = ["Shortcuts", "ShortcutsConfig"]


@dataclass(frozen=True, kw_only=True)
class ShortcutsConfig:
    """Which shortcuts there are.

    Example:
        >>> shortcuts = ShortcutsConfig(values=False).build(d_model=8, kv_width=4, num_layers=2)
        >>> [name for name, _ in shortcuts.named_parameters()]
        ['stream_shares']
    """

    stream: bool = True
    """Add the embedded token to the stream again before every block but the first, times a learned
    scalar that starts at 0 (modded-nanogpt, 2024)."""
    values: bool = True
    """Add to the values of every block's attention a projection of the embedded token, times a
    learned scalar (value residual, Zhou et al., 2024, arXiv 2410.17897, where the projection is the
    first block's own)."""

    def build(self, *, d_model: int, kv_width: int, num_layers: int) -> "Shortcuts":
        """Make the shortcuts of a decoder."""
        return Shortcuts(self, d_model=d_model, kv_width=kv_width, num_layers=num_layers)


class Shortcuts(nn.Module):
    """What of the start of the stream is added where, and how much.

    Args:
        config: Which there are.
        d_model: Width of the stream.
        kv_width: Width of all values of a block's attention.
        num_layers: Blocks.

    Example:
        >>> import torch
        >>> shortcuts = ShortcutsConfig().build(d_model=8, kv_width=4, num_layers=2)
        >>> shortcuts.project(torch.ones(1, 3, 8)).shape
        torch.Size([1, 3, 4])
    """

    def __init__(
        self, config: ShortcutsConfig, *, d_model: int, kv_width: int, num_layers: int
    ) -> None:
        super().__init__()
        values = config.values
        self.stream_shares = learned_scalars(num_layers - 1 if config.stream else 0)
        self.value_shares = learned_scalars(num_layers if values else 0)
        self.norm = RMSNorm(d_model, gain="none")
        self.source = Linear(d_model, kv_width, role="input", bias=False) if values else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put the shares back to where they start."""
        if self.stream_shares is not None:
            nn.init.zeros_(self.stream_shares)
        if self.value_shares is not None:
            nn.init.constant_(self.value_shares, 0.5)

    def project(self, start: Tensor) -> Tensor | None:
        """Project the embedded tokens (batch, seq, d_model) to values (batch, seq, kv_width)."""
        return None if self.source is None else self.source(self.norm(start))

    def add(self, x: Tensor, start: Tensor, layer: int) -> Tensor:
        """Add to the stream what a block gets of its ``start``."""
        if self.stream_shares is None or layer == 0:
            return x
        return x + self.stream_shares[layer - 1].to(x.dtype) * start

    def value(self, projected: Tensor | None, layer: int) -> Tensor | None:
        """Return what a block adds to its values (batch, seq, kv_width), or None for nothing."""
        if projected is None or self.value_shares is None:
            return None
        return self.value_shares[layer].to(projected.dtype) * projected
