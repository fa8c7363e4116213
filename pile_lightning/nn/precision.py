"""The one question of mixed precision that pure torch code has to ask."""

import torch
from torch import Tensor

__all__ = ["to_autocast"]


def to_autocast(x: Tensor) -> Tensor:
    """Cast ``x`` to the type that ``torch.autocast`` computes products in, where it is on.

    Example:
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     to_autocast(torch.ones(1)).dtype
        torch.bfloat16
    """
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
