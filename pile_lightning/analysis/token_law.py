"""How loss falls with size and tokens: ``L(N, D) = E + A * N ** -alpha + B * D ** -beta``.

The third approach of Hoffmann et al. 2022 (arXiv 2203.15556, equation 2). From the law follows what
size a budget of FLOPs is best spent on. The intervals tell noise, not whether the law goes on where
nothing was trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pile_lightning.analysis.cost import Cost
from pile_lightning.analysis.power_laws import Powers, fit_powers

__all__ = ["Allocation", "TokenFit", "TokenLaw", "distinct_counts", "fit_token_law"]

Floats = npt.NDArray[np.float64]

LEAST = 3
"""Sizes, and counts of tokens: two leave scale and exponent of a power open."""
LEAST_POINTS = 6
"""Five would be met exactly, whatever they are."""
_ALIKE = 0.01
"""Counts of tokens that differ by less are one: a last step may be cut short."""
_TIED = 0.98
"""Correlation of log N and log D from which the two powers cannot be told apart."""
_COVERED = (2.5, 97.5)
_GRID = 4001


@dataclass(frozen=True, kw_only=True)
class TokenLaw:
    """``L(N, D) = E + A * N ** -alpha + B * D ** -beta``.

    Example:
        >>> law = TokenLaw(floor=1.0, scale=10.0, exponent=0.5, token_scale=20.0, token_exponent=1)
        >>> round(float(law(100, 10)), 6)
        4.0
    """

    floor: float
    """E: what no size and no text gets below."""
    scale: float
    """A."""
    exponent: float
    """Alpha."""
    token_scale: float
    """B."""
    token_exponent: float
    """Beta."""

    def __call__(self, sizes: npt.ArrayLike, tokens: npt.ArrayLike) -> Floats:
        """Return the losses of sizes that are trained on so many tokens."""
        n, d = np.asarray(sizes, dtype=float), np.asarray(tokens, dtype=float)
        of_size: Floats = self.scale * n**-self.exponent
        loss: Floats = self.floor + of_size + self.token_scale * d**-self.token_exponent
        return loss

    def best(
        self, flops: float, flops_per_token: Cost, *, around: float
    ) -> tuple[float, float, float]:
        """Return the size, the tokens and the loss of the lowest that a budget can reach.

        Args:
            flops: The budget.
            flops_per_token: The cost of training a size on a token.
            around: A size, of which those from a millionth to a million times as large are tried.
        """
        sizes = np.geomspace(around / 1e6, around * 1e6, _GRID)
        tokens = flops / flops_per_token(sizes)
        losses = self(sizes, tokens)
        at = int(losses.argmin())
        return float(sizes[at]), float(tokens[at]), float(losses[at])


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """What a budget is best spent on, each with its 95 % interval."""

    flops: float
    """The budget."""
    size: tuple[float, float, float]
    """N."""
    tokens: tuple[float, float, float]
    """D."""
    loss: tuple[float, float, float]
    """What they reach."""


@dataclass(frozen=True, kw_only=True)
class TokenFit:
    """A law, and those of residuals drawn anew."""

    law: TokenLaw
    """The law."""
    redrawn: tuple[TokenLaw, ...]
    """The others."""
    error: float
    """Root of the mean squared residual of the losses' logarithm: 0.01 is 1 % of the loss."""

    def interval(self, name: str) -> tuple[float, float]:
        """Return the 95 % interval of a number of the law, by its field."""
        low, high = np.percentile([getattr(law, name) for law in self.redrawn], _COVERED)
        return float(low), float(high)

    def predict(self, size: float, tokens: float) -> tuple[float, float, float]:
        """Return the loss, and both ends of its 95 % interval."""
        return _with_interval(*(float(law(size, tokens)) for law in (self.law, *self.redrawn)))

    def spend(self, flops: float, flops_per_token: Cost, *, around: float) -> Allocation:
        """Return what ``TokenLaw.best`` does, with intervals; arguments as there."""
        laws = (self.law, *self.redrawn)
        found = [law.best(flops, flops_per_token, around=around) for law in laws]
        size, tokens, loss = (_with_interval(*each) for each in zip(*found, strict=True))
        return Allocation(flops=flops, size=size, tokens=tokens, loss=loss)


def _with_interval(value: float, *redrawn: float) -> tuple[float, float, float]:
    low, high = np.percentile(redrawn, _COVERED)
    return float(value), float(low), float(high)


def distinct_counts(counts: Sequence[float]) -> list[float]:
    """Return counts that differ by more than a hundredth, ascending.

    Example:
        >>> distinct_counts([2e6, 1e6, 1.001e6])
        [1000000.0, 2000000.0]
    """
    found: list[float] = []
    for count in sorted(counts):
        if not found or count > found[-1] * (1 + _ALIKE):
            found.append(float(count))
    return found


def fit_token_law(
    sizes: Sequence[float], tokens: Sequence[float], losses: Sequence[float], *, seed: int = 0
) -> TokenFit:
    """Fit a law to the losses of sizes after tokens, of which a pair may come several times.

    Args:
        sizes: Numbers of parameters.
        tokens: What each was trained on.
        losses: The loss of each.
        seed: Of the residuals that are drawn anew.

    Raises:
        ValueError: Where the points leave a number of the law open, or have no logarithm.

    Example:
        >>> law = TokenLaw(
        ...     floor=1.7, scale=400, exponent=0.34, token_scale=410, token_exponent=0.28
        ... )
        >>> n, d = (each.ravel() for each in np.meshgrid([1e8, 3e8, 1e9, 3e9], [1e10, 3e10, 1e11]))
        >>> fit = fit_token_law(n, d, law(n, d))
        >>> round(fit.law.exponent, 3), round(fit.law.token_exponent, 3)
        (0.34, 0.28)
    """
    n, d, loss = (np.asarray(each, dtype=float) for each in (sizes, tokens, losses))
    if not n.shape == d.shape == loss.shape or not all(
        (each > 0).all() and np.isfinite(each).all() for each in (n, d, loss)
    ):
        raise ValueError(
            f"a law of size and tokens is fitted to {n.size} sizes, {d.size} counts of tokens and "
            f"{loss.size} losses; give as many of each, all of them finite and above 0"
        )
    _check_determined(n, d)
    fit = fit_powers(np.stack([n, d]), loss, seed=seed)
    return TokenFit(
        law=_law(fit.best), redrawn=tuple(_law(each) for each in fit.redrawn), error=fit.error
    )


def _check_determined(n: Floats, d: Floats) -> None:
    num_sizes, counts = len(np.unique(n)), distinct_counts(d.tolist())
    points = {
        (size, sum(count >= each for each in counts)) for size, count in zip(n, d, strict=True)
    }
    missing = []
    if num_sizes < LEAST:
        missing.append(f"A and alpha need {LEAST} sizes (there are {num_sizes}): train more sizes")
    if len(counts) < LEAST:
        missing.append(
            f"B and beta need {LEAST} counts of tokens (there are {len(counts)}): train a run of "
            f"another trainer.max_steps, and give it too"
        )
    if not missing and len(points) < LEAST_POINTS:
        missing.append(
            f"five numbers need {LEAST_POINTS} pairs of a size and a count (there are "
            f"{len(points)}): train more"
        )
    if not missing and abs(np.corrcoef(np.log(n), np.log(d))[0, 1]) > _TIED:
        missing.append(
            "size and tokens rise together, so that the power of one cannot be told from that of "
            "the other: train one size on several counts of tokens, or several on one"
        )
    if missing:
        raise ValueError(f"a law of size and tokens cannot be fitted: {'; '.join(missing)}")


def _law(powers: Powers) -> TokenLaw:
    return TokenLaw(
        floor=powers.floor,
        scale=powers.scales[0],
        exponent=powers.exponents[0],
        token_scale=powers.scales[1],
        token_exponent=powers.exponents[1],
    )
