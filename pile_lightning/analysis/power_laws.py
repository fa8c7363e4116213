"""Fit a floor and falling powers, ``E + sum_i A_i * x_i ** -a_i``, as Hoffmann et al. 2022 do.

Residuals are those of the logarithm of the loss, under Huber's loss (arXiv 2203.15556, appendix
D.3), from many starts. Fits of redrawn losses tell intervals: their residuals are drawn anew, which
supposes that they are alike at all points.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

__all__ = ["PowerFit", "Powers", "fit_powers"]

Floats = npt.NDArray[np.float64]

_DELTA = 1e-3
_ROUNDS = 400
_STRETCHES, _STEPS = 20, 10
_PROGRESS = 1e-9
"""Share of its value that a fit must lose in a stretch of steps to go on."""
_FLOORS = (0.1, 0.5, 0.8, 0.95)
_EXPONENTS = (0.1, 0.3, 0.6, 1.2)
_SHARES: dict[int, tuple[tuple[float, ...], ...]] = {
    1: ((1.0,),),
    2: ((0.2, 0.8), (0.5, 0.5), (0.8, 0.2)),
}
"""Of each power in what is above the floor, at the start."""
_LOWEST, _HIGHEST = (-12.0, -30.0, -5.0), (12.0, 30.0, 2.0)
"""Logarithms of floor, scale, exponent: a pure power law has a floor of 0, which none reaches."""


@dataclass(frozen=True, kw_only=True)
class Powers:
    """A floor and powers."""

    floor: float
    """E."""
    scales: tuple[float, ...]
    """A of each power."""
    exponents: tuple[float, ...]
    """And its exponent."""


@dataclass(frozen=True, kw_only=True)
class PowerFit:
    """What was fitted, and what was to losses whose residuals were drawn anew."""

    best: Powers
    """Of the losses."""
    redrawn: tuple[Powers, ...]
    """Of the others."""
    error: float
    """Root of the mean squared residual of the losses' logarithm: 0.01 is 1 % of the loss."""


def fit_powers(x: Floats, loss: Floats, *, seed: int = 0) -> PowerFit:
    """Fit a floor and a power of each of one or two quantities.

    Args:
        x: The quantities (power, point), above 0.
        loss: Of each point, above 0.
        seed: Of the residuals that are drawn anew.

    Example:
        >>> x = np.array([[1e4, 3e4, 1e5, 3e5, 1e6]])
        >>> best = fit_powers(x, 0.9 + 20.0 * x[0] ** -0.4).best
        >>> round(best.floor, 3), round(best.scales[0], 1), round(best.exponents[0], 3)
        (0.9, 20.0, 0.4)
    """
    num_powers, num_points = x.shape
    # around the middle, or a scale and its exponent could hardly be told apart
    middle = np.log(x).mean(axis=1)
    z, y = np.log(x) - middle[:, None], np.log(loss)
    starts = _starts(loss, num_powers)
    ends, values = _descend(starts, z, np.broadcast_to(y, (len(starts), num_points)))
    best = ends[values.argmin()]
    fitted = _log_loss(best[None], z)[0]
    residuals = y - fitted
    spread = residuals * np.sqrt(num_points / max(num_points - len(best), 1))
    draws = np.random.default_rng(seed).integers(num_points, size=(_ROUNDS, num_points))
    again, _ = _descend(np.tile(best, (_ROUNDS, 1)), z, fitted + spread[draws])
    return PowerFit(
        best=_powers(best, middle),
        redrawn=tuple(_powers(each, middle) for each in again),
        error=float(np.sqrt((residuals**2).mean())),
    )


# Below, a fit is a row: the logarithms of the floor, of the scales, of the exponents.


def _starts(loss: Floats, num_powers: int) -> Floats:
    above = [(np.log(f * loss.min()), np.median(loss) - f * loss.min()) for f in _FLOORS]
    exponents = product(np.log(_EXPONENTS), repeat=num_powers)
    return np.array(
        [
            [floor, *np.log(rest * np.array(shares)), *powers]
            for (floor, rest), shares, powers in product(above, _SHARES[num_powers], exponents)
        ]
    )


def _powers(fit: Floats, middle: Floats) -> Powers:
    scales, exponents = fit[1:].reshape(2, -1)
    return Powers(
        floor=float(np.exp(fit[0])),
        scales=tuple(np.exp(scales + np.exp(exponents) * middle).tolist()),
        exponents=tuple(np.exp(exponents).tolist()),
    )


def _terms(fits: Floats, z: Floats) -> Floats:
    """Return the logarithm of each power (fit, power, point)."""
    scales, exponents = np.split(fits[:, 1:, None], 2, axis=1)
    terms: Floats = scales - np.exp(exponents) * z
    return terms


def _log_loss(fits: Floats, z: Floats) -> Floats:
    """Return the logarithms of losses (fit, point)."""
    above: Floats = np.logaddexp.reduce(_terms(fits, z), axis=1)
    return np.logaddexp(above, fits[:, :1])


def _huber(residuals: Floats) -> Floats:
    far = np.abs(residuals)
    total: Floats = np.where(far <= _DELTA, 0.5 * residuals**2, _DELTA * (far - 0.5 * _DELTA)).sum(
        axis=1
    )
    return total


def _descend(fits: Floats, z: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Go down from ``fits``, and return where each came to and its value."""
    fits, damping = fits.copy(), np.full(len(fits), 1e-2)
    value = _huber(_log_loss(fits, z) - y)
    going = np.arange(len(fits))
    for _ in range(_STRETCHES):
        before = value[going]
        fits[going], value[going], damping[going] = _stretch(
            fits[going], damping[going], z, y[going]
        )
        going = going[before - value[going] > _PROGRESS * before]
        if not len(going):
            break
    return fits, value


def _stretch(fits: Floats, damping: Floats, z: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Take some of Levenberg's and Marquardt's steps, all fits at once."""
    num_powers, size = len(z), fits.shape[1]
    kinds = [0, *[1] * num_powers, *[2] * num_powers]
    lowest, highest = np.array(_LOWEST)[kinds], np.array(_HIGHEST)[kinds]
    residuals = _log_loss(fits, z) - y
    value = _huber(residuals)
    for _ in range(_STEPS):
        shares = np.exp(_terms(fits, z) - (residuals + y)[:, None])  # of the loss
        slopes = -shares * z * np.exp(fits[:, 1 + num_powers :, None])
        floors = 1 - shares.sum(axis=1, keepdims=True)
        jacobian = np.concatenate([floors, shares, slopes], axis=1).swapaxes(1, 2)
        weights = _DELTA / np.maximum(np.abs(residuals), _DELTA)
        weighted = jacobian * weights[:, :, None]  # (fit, point, number)
        normal = weighted.swapaxes(1, 2) @ jacobian
        gradient = np.einsum("fpi,fp->fi", weighted, residuals)
        diagonal = np.einsum("fii->fi", normal) * damping[:, None] + 1e-12
        step = np.linalg.solve(normal + diagonal[:, :, None] * np.eye(size), gradient[:, :, None])
        tried = np.clip(fits - np.clip(step[:, :, 0], -1.0, 1.0), lowest, highest)
        new_residuals = _log_loss(tried, z) - y
        new_value = _huber(new_residuals)
        better = new_value < value
        fits = np.where(better[:, None], tried, fits)
        residuals = np.where(better[:, None], new_residuals, residuals)
        value = np.where(better, new_value, value)
        damping = np.clip(np.where(better, damping * 0.3, damping * 4), 1e-12, 1e8)
    return fits, value, damping
