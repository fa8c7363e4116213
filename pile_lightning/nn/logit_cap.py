"""Soft-capped logits: no logit is past a bound, and none loses its gradient at it."""

from torch import Tensor

__all__ = ["cap_logits", "cap_slope"]


def cap_logits(logits: Tensor, cap: float | None) -> Tensor:
    """Bend ``logits`` to ``cap * tanh(logits / cap)``; ``None`` leaves them as they are.

    Source: Gemma 2, arXiv 2408.00118, section 2.

    Example:
        >>> import torch
        >>> cap_logits(torch.tensor([-1000.0, 0.0, 1.0]), 30.0)
        tensor([-30.0000,   0.0000,   0.9996])
    """
    return logits if cap is None else (logits / cap).tanh() * cap


def cap_slope(capped: Tensor, cap: float) -> Tensor:
    """Return the derivative of what ``cap_logits`` made, at each of its results."""
    return 1 - (capped / cap).square()
