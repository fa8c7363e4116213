"""Perplexity and bits per byte, by domain, as sums that reduce exactly over batches and ranks."""

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["BitsPerByte", "Perplexity"]


class _NatsPer(Metric):
    """Nats over a count of something, for each domain and for all of them together."""

    full_state_update = False
    nats: Tensor
    count: Tensor

    def __init__(self, *, num_domains: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_domains < 1:
            raise ValueError(f"num_domains={num_domains}: there is at least one domain")
        # float32 sums lose digits after some ten million tokens; Apple's GPUs have no float64
        floats = torch.float32 if torch.backends.mps.is_available() else torch.float64
        self.add_state("nats", torch.zeros(num_domains, dtype=floats), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(num_domains, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nats: Tensor, count: Tensor, domain: Tensor | None = None) -> None:
        """Add rows.

        Args:
            nats: Summed negative log-likelihood of each row (batch,).
            count: What the nats are divided by, for each row (batch,).
            domain: Domain index of each row (batch,); all rows are of domain 0 by default.
        """
        if domain is None:
            domain = torch.zeros_like(count)
        self.nats.index_add_(0, domain, nats.detach().to(self.nats.dtype))
        self.count.index_add_(0, domain, count)

    @abstractmethod
    def score(self, nats: Tensor, count: Tensor) -> Tensor:
        """Turn sums into the score."""

    def compute(self) -> Tensor:
        """Return the score over all domains together, nan where nothing was counted."""
        return self.score(self.nats.sum(), self.count.sum())

    def num_counted(self) -> int:
        """Return the count over all domains, reduced over ranks like ``compute``."""
        with self.sync_context():
            return int(self.count.sum())

    def by_domain(self) -> Tensor:
        """Return the score of each domain (num_domains,), reduced over ranks like ``compute``."""
        with self.sync_context():
            return self.score(self.nats, self.count)


class Perplexity(_NatsPer):
    """Exponential of the mean negative log-likelihood of a token; ``count`` is tokens.

    Example:
        >>> metric = Perplexity()
        >>> metric.update(torch.tensor([4 * math.log(8)]), torch.tensor([4]))
        >>> round(metric.compute().item(), 6)
        8.0
    """

    def score(self, nats: Tensor, count: Tensor) -> Tensor:
        """Turn sums into the score."""
        return torch.exp(nats / count)


class BitsPerByte(_NatsPer):
    """Bits that the model needs for a byte of UTF-8 text; ``count`` is bytes.

    Unlike perplexity it compares models of different tokenizers, and with general compressors.

    Example:
        >>> metric = BitsPerByte(num_domains=2)
        >>> nats = torch.tensor([8.0, 16.0]) * math.log(2)
        >>> metric.update(nats, torch.tensor([4, 4]), torch.tensor([0, 1]))
        >>> metric.compute().round(decimals=6).item(), metric.by_domain().round(decimals=6).tolist()
        (3.0, [2.0, 4.0])
    """

    def score(self, nats: Tensor, count: Tensor) -> Tensor:
        """Turn sums into the score."""
        return nats / math.log(2) / count
