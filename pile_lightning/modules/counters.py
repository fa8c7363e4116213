"""Sums of a training run that stay on the device: reading one would wait for it."""

import torch
from torch import Tensor

__all__ = ["Counters"]


class Counters:
    """Sums since the last log or step; apart from the module, which is slow to set."""

    def __init__(self, device: torch.device) -> None:
        # float32 sums lose digits after some ten million tokens; Apple's GPUs have no float64
        floats = torch.float32 if device.type == "mps" else torch.float64
        self.nats = torch.zeros((), dtype=floats, device=device)
        self.num_tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.step_tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.norm: Tensor | None = None

    def take(self) -> Tensor:
        """Return nats and tokens since the last time (2,)."""
        sums = torch.stack([self.nats, self.num_tokens.to(self.nats.dtype)])
        self.nats.zero_()
        self.num_tokens.zero_()
        return sums
