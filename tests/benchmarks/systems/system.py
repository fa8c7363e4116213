"""What a system brings: how its network, loss and optimizer are made, in each of its modes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["SIZES", "Size", "System", "Trainee", "adamw"]


@dataclass(frozen=True, kw_only=True)
class Size:
    """What all systems have in common."""

    num_layers: int
    d_model: int
    vocab_size: int
    seq_len: int
    batch_size: int
    head_dim: int = 64

    @property
    def num_heads(self) -> int:
        """Attention heads."""
        return self.d_model // self.head_dim

    def llama(self) -> dict[str, int]:
        """Return what a Llama's config is made of."""
        return {
            "num_layers": self.num_layers,
            "d_model": self.d_model,
            "num_heads": self.num_heads,
            "num_kv_heads": self.num_heads,
            "d_ff": self.gated_d_ff,
            "vocab_size": self.vocab_size,
            "seq_len": self.seq_len,
        }

    @property
    def gated_d_ff(self) -> int:
        """Hidden features of a gated layer with the parameters of a plain one of 4 * d_model."""
        return 16 * round(8 * self.d_model / 3 / 16)


SIZES = {
    "small": Size(num_layers=4, d_model=256, vocab_size=8192, seq_len=256, batch_size=16),
    "large": Size(num_layers=8, d_model=512, vocab_size=32768, seq_len=512, batch_size=8),
    "tiny": Size(num_layers=1, d_model=32, vocab_size=64, seq_len=16, batch_size=2, head_dim=16),
}


@dataclass
class Trainee:
    """A network that is being trained."""

    network: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    """Mean cross-entropy from token ids and labels (batch, seq)."""
    optimizer: Optimizer


@dataclass(frozen=True, kw_only=True)
class System:
    """A way to train the same network.

    ``modes`` are tried, and the fastest counts.
    """

    name: str
    note: str
    modes: Mapping[str, Callable[[Size, torch.device], Trainee]] = field(default_factory=dict)
    roomy_modes: Mapping[str, Callable[[Size, torch.device], Trainee]] = field(default_factory=dict)
    """Modes that take more time and less memory, tried where memory decides how many rows fit."""
    missing: str = ""
    """Why it cannot run here."""
    is_ours: bool = False


def adamw(network: nn.Module) -> Optimizer:
    """Make the optimizer that all share."""
    return torch.optim.AdamW(
        network.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
