"""What training a size costs a token, known at some sizes and wanted at any."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Cost", "cost_between"]

Floats = npt.NDArray[np.float64]
Cost: TypeAlias = Callable[[Floats], Floats]
"""From sizes to FLOPs a token."""


def cost_between(sizes: Sequence[float], costs: Sequence[float]) -> Cost:
    """Return a cost of any size from those of some: between them a power, in proportion beyond.

    Args:
        sizes: Numbers of parameters, in any order; of one that comes again the mean is taken.
        costs: FLOPs a token of each.

    Example:
        >>> cost = cost_between([100, 10000], [1000, 30000])
        >>> cost(np.array([10, 100, 1000, 10000, 100000])).round().tolist()
        [100.0, 1000.0, 5477.0, 30000.0, 300000.0]
    """
    x, y = np.asarray(sizes, dtype=float), np.asarray(costs, dtype=float)
    known = np.unique(x)
    means = np.array([y[x == size].mean() for size in known])

    def cost(wanted: Floats) -> Floats:
        inside = np.clip(wanted, known[0], known[-1])
        between = np.exp(np.interp(np.log(inside), np.log(known), np.log(means)))
        scaled: Floats = between * wanted / inside
        return scaled

    return cost
