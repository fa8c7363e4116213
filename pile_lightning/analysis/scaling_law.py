"""How loss falls with size: ``L(N) = E + A * N ** -alpha``, of models trained on as many tokens.

The intervals tell noise, not whether the law goes on where no size was trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pile_lightning.analysis.power_laws import Powers, fit_powers

__all__ = ["LEAST_SIZES", "ScalingFit", "ScalingLaw", "fit_scaling_law"]

Floats = npt.NDArray[np.float64]

LEAST_SIZES = 4
"""Three would be met exactly, whatever they are."""
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
    fit = fit_powers(n[None], loss, seed=seed)
    return ScalingFit(
        law=_law(fit.best), redrawn=tuple(_law(each) for each in fit.redrawn), error=fit.error
    )


def _law(powers: Powers) -> ScalingLaw:
    return ScalingLaw(floor=powers.floor, scale=powers.scales[0], exponent=powers.exponents[0])
