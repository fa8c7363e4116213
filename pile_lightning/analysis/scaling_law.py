"""How loss falls with size: ``L(N) = E + A * N ** -alpha``, fitted as Hoffmann et al. 2022 do.

Residuals are those of the logarithm of the loss, under Huber's loss (arXiv 2203.15556, appendix
D.3), from many starts. The intervals come from drawing residuals anew, which supposes that they are
alike at all sizes. They tell noise, not whether the law goes on where no size was trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

__all__ = ["ScalingFit", "ScalingLaw", "fit_scaling_law"]

Floats = npt.NDArray[np.float64]

LEAST_SIZES = 4
"""Three would be met exactly, whatever they are."""
_DELTA = 1e-3
_ROUNDS = 400
_STARTS = tuple(product((0.1, 0.5, 0.8, 0.95), (0.1, 0.3, 0.6, 1.2)))
_STEPS = 200
_BOUNDS = np.array([[-30.0, -12.0, -5.0], [30.0, 12.0, 2.0]])
"""Of the logarithms: a pure power law has a floor of 0, which is never reached."""
_COVERED = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class ScalingLaw:
    """``L(N) = E + A * N ** -alpha``.

    Example:
        >>> round(float(ScalingLaw(floor=1.0, scale=10.0, exponent=0.5)(100)), 6)
        2.0
    """

    floor: float
    """E: what no size gets below."""
    scale: float
    """A."""
    exponent: float
    """Alpha."""

    def __call__(self, sizes: npt.ArrayLike) -> Floats:
        """Return the losses of sizes."""
        loss: Floats = self.floor + self.scale * np.asarray(sizes, dtype=float) ** -self.exponent
        return loss


@dataclass(frozen=True, kw_only=True)
class ScalingFit:
    """A law, and those of residuals drawn anew."""

    law: ScalingLaw
    """The law."""
    redrawn: tuple[ScalingLaw, ...]
    """The others."""
    error: float
    """Root of the mean squared residual of the losses' logarithm: 0.01 is 1 % of the loss."""

    def interval(self, name: str) -> tuple[float, float]:
        """Return the 95 % interval of ``floor``, ``scale`` or ``exponent``."""
        low, high = np.percentile([getattr(law, name) for law in self.redrawn], _COVERED)
        return float(low), float(high)

    def predict(self, sizes: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
        """Return the losses of sizes, and both ends of their 95 % intervals."""
        low, high = np.percentile([law(sizes) for law in self.redrawn], _COVERED, axis=0)
        return self.law(sizes), low, high


def fit_scaling_law(
    sizes: Sequence[float], losses: Sequence[float], *, seed: int = 0
) -> ScalingFit:
    """Fit a law to the losses of sizes, of which one may come several times.

    Args:
        sizes: Numbers of parameters.
        losses: The loss of each.
        seed: Of the residuals that are drawn anew.

    Raises:
        ValueError: For fewer than four sizes, or what has no logarithm.

    Example:
        >>> law = ScalingLaw(floor=0.9, scale=20.0, exponent=0.4)
        >>> sizes = [1e4, 3e4, 1e5, 3e5, 1e6]
        >>> fit = fit_scaling_law(sizes, law(sizes))
        >>> round(fit.law.floor, 3), round(fit.law.scale, 1), round(fit.law.exponent, 3)
        (0.9, 20.0, 0.4)
    """
    n, loss = np.asarray(sizes, dtype=float), np.asarray(losses, dtype=float)
    distinct = len(np.unique(n))
    if distinct < LEAST_SIZES:
        raise ValueError(
            f"a scaling law is fitted to {distinct} size{'s' * (distinct != 1)}; its three numbers "
            f"need {LEAST_SIZES} at least: train more sizes, or hold out fewer"
        )
    if n.shape != loss.shape or not ((n > 0) & (loss > 0) & np.isfinite(n * loss)).all():
        raise ValueError(
            f"a scaling law is fitted to sizes {list(sizes)} and losses {list(losses)}; give as "
            f"many of each, all of them finite and above 0"
        )
    # around the middle, or the scale and the exponent could hardly be told apart
    middle = np.log(n).mean()
    z, y = np.log(n) - middle, np.log(loss)
    starts = np.array([_start(loss, share, exponent) for share, exponent in _STARTS])
    ends, values = _descend(starts, z, np.broadcast_to(y, (len(starts), len(y))))
    best = ends[values.argmin()]
    fitted = _log_loss(best[None], z)[0]
    residuals = y - fitted
    spread = residuals * np.sqrt(len(y) / max(len(y) - 3, 1))
    draws = np.random.default_rng(seed).integers(len(y), size=(_ROUNDS, len(y)))
    again, _ = _descend(np.tile(best, (_ROUNDS, 1)), z, fitted + spread[draws])
    return ScalingFit(
        law=_law(best, middle),
        redrawn=tuple(_law(each, middle) for each in again),
        error=float(np.sqrt((residuals**2).mean())),
    )


def _start(loss: Floats, share: float, exponent: float) -> list[float]:
    floor = share * loss.min()
    return [np.log(np.median(loss) - floor), np.log(floor), np.log(exponent)]


def _law(x: Floats, middle: float) -> ScalingLaw:
    exponent = float(np.exp(x[2]))
    scale = float(np.exp(x[0] + exponent * middle))
    return ScalingLaw(floor=float(np.exp(x[1])), scale=scale, exponent=exponent)


def _log_loss(x: Floats, z: Floats) -> Floats:
    """Return the logarithms of losses (fit, size) by ``x``: log A, log E, log alpha (fit, 3)."""
    return np.logaddexp(x[:, :1] - np.exp(x[:, 2:]) * z, x[:, 1:2])


def _huber(residuals: Floats) -> Floats:
    far = np.abs(residuals)
    total: Floats = np.where(far <= _DELTA, 0.5 * residuals**2, _DELTA * (far - 0.5 * _DELTA)).sum(
        axis=1
    )
    return total


def _descend(x: Floats, z: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Go down from ``x`` (fit, 3) by Levenberg's and Marquardt's steps, all fits at once."""
    damping = np.full(len(x), 1e-2)
    residuals = _log_loss(x, z) - y
    value = _huber(residuals)
    for _ in range(_STEPS):
        falling = np.exp(x[:, :1] - np.exp(x[:, 2:]) * z - (residuals + y))  # its share of the loss
        slope = -falling * z * np.exp(x[:, 2:])
        jacobian = np.stack([falling, 1 - falling, slope], axis=2)  # (fit, size, 3)
        weights = _DELTA / np.maximum(np.abs(residuals), _DELTA)
        weighted = jacobian * weights[:, :, None]
        normal = np.einsum("fsi,fsj->fij", weighted, jacobian)
        gradient = np.einsum("fsi,fs->fi", weighted, residuals)
        diagonal = np.einsum("fii->fi", normal) * damping[:, None] + 1e-12
        step = np.linalg.solve(normal + diagonal[:, :, None] * np.eye(3), gradient[:, :, None])
        tried = x - np.clip(step[:, :, 0], -1.0, 1.0)
        tried = np.clip(tried, *_BOUNDS)
        new_residuals = _log_loss(tried, z) - y
        new_value = _huber(new_residuals)
        better = new_value < value
        x = np.where(better[:, None], tried, x)
        residuals = np.where(better[:, None], new_residuals, residuals)
        value = np.where(better, new_value, value)
        damping = np.clip(np.where(better, damping * 0.3, damping * 4), 1e-12, 1e8)
    return x, value
