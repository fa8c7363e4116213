"""Where the loss is lowest along a swept field, and how sure that is.

Losses over a wide grid are no parabola, but near their lowest point they are: it is put through the
best point and two on either side. Where the best is the first or the last, nothing is known of what
lies beyond, and no optimum is made up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Optimum", "find_optimum", "is_geometric"]

Floats = npt.NDArray[np.float64]

_BESIDE = 2
_ROUNDS = 1000
_COVERED = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The best value of a field."""

    value: float
    """Where the loss is lowest."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end."""
    border: Literal["lowest", "highest"] | None
    """Which end of the grid it is, if any: the optimum may lie beyond."""
    num_seeds: int
    """Seeds that the interval is made from: of one, it is the neighbours in the grid."""


def is_geometric(values: Sequence[float]) -> bool:
    """Say whether values are spaced by factors rather than by differences.

    Example:
        >>> is_geometric([0.01, 0.03, 0.1]), is_geometric([64, 96, 128]), is_geometric([0.0, 1.0])
        (True, False, False)
    """
    ordered = np.unique(np.asarray(values, dtype=float))
    if len(ordered) < 2 or ordered[0] <= 0:
        return False
    if len(ordered) == 2:
        return bool(ordered[1] >= 2 * ordered[0])
    return _unevenness(np.log(ordered)) < _unevenness(ordered)


def _unevenness(ordered: Floats) -> float:
    gaps = np.diff(ordered)
    return float(gaps.std() / gaps.mean())


def find_optimum(
    values: Sequence[float], losses: npt.ArrayLike, *, logarithmic: bool, seed: int = 0
) -> Optimum:
    """Return where the mean loss over seeds is lowest, with a 95 % interval.

    Args:
        values: Of the field, ascending.
        losses: Of each value with each seed (value, seed); nan where there is none.
        logarithmic: Whether the parabola is one of the values' logarithms.
        seed: Of the bootstrap, which draws seeds anew.

    Raises:
        ValueError: For fewer than two values, or losses of another number of values.

    Example:
        >>> losses = [[(np.log(lr) - np.log(0.03)) ** 2] for lr in (0.01, 0.02, 0.04, 0.08)]
        >>> best = find_optimum([0.01, 0.02, 0.04, 0.08], losses, logarithmic=True)
        >>> round(best.value, 6), best.low, best.high, best.border
        (0.03, 0.02, 0.08, None)
    """
    table = np.asarray(losses, dtype=float)
    if len(values) < 2 or table.ndim != 2 or len(table) != len(values):
        raise ValueError(
            f"an optimum is looked for among {len(values)} values with losses of shape "
            f"{table.shape}; give two values at least, and a row of losses for each"
        )
    places = np.asarray(values, dtype=float)
    x = np.log(places) if logarithmic else places
    back = np.exp if logarithmic else np.asarray
    means = np.nanmean(table, axis=1)
    best = int(means.argmin())
    value = float(back(_lowest(x, means)))
    last = len(values) - 1
    border: Literal["lowest", "highest"] | None = None
    if best in (0, last):
        value, border = float(places[best]), "lowest" if best == 0 else "highest"
    whole = table[:, np.isfinite(table).all(axis=0)]
    num_seeds = whole.shape[1]
    if num_seeds < 2:
        low, high = places[max(best - 1, 0)], places[min(best + 1, last)]
    else:
        draws = np.random.default_rng(seed).integers(num_seeds, size=(_ROUNDS, num_seeds))
        found = [_lowest(x, whole[:, draw].mean(axis=1)) for draw in draws]
        low, high = back(np.percentile(found, _COVERED))
    return Optimum(
        value=value,
        low=float(low),
        high=float(high),
        border=border,
        num_seeds=max(num_seeds, 1),
    )


def _lowest(x: Floats, losses: Floats) -> float:
    best = int(losses.argmin())
    if best in (0, len(x) - 1):
        return float(x[best])
    near = slice(max(best - _BESIDE, 0), best + _BESIDE + 1)
    curvature, slope, _ = np.polyfit(x[near] - x[best], losses[near], 2)
    if curvature <= 0:
        return float(x[best])
    return float(np.clip(x[best] - slope / (2 * curvature), x[best - 1], x[best + 1]))
