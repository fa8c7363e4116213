"""Successive halving: at stated steps the worst members stop, and cost nothing any more."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Halving", "losers"]


@dataclass(frozen=True, kw_only=True)
class Halving:
    """When members are stopped for their scores, and how many go on.

    Source: Jamieson and Talwalkar, arXiv 1502.07943.

    Example:
        >>> Halving(at=[200, 400], keep=0.5).at
        [200, 400]
    """

    at: list[int]
    """Optimizer steps after which the worst stop."""
    keep: float = 0.5
    """Share of those in training that go on; one at least."""

    def __post_init__(self) -> None:
        if not self.at or any(step < 1 for step in self.at) or sorted(set(self.at)) != [*self.at]:
            raise ValueError(
                f"halving.at={list(self.at)}: give the steps at which members stop, from 1 on and "
                f"in order"
            )
        if not 0 < self.keep < 1:
            raise ValueError(f"halving.keep={self.keep} is the share that goes on, between 0 and 1")


def losers(scores: Mapping[str, float], *, keep: float) -> list[str]:
    """Return who stops: the worst, so that the share ``keep`` of them, rounded up, goes on.

    Args:
        scores: Of each that trains, smaller being better; one that is not finite is the worst.
        keep: The share.

    Example:
        >>> losers({"a": 2.0, "b": 1.0, "c": float("nan")}, keep=0.5)
        ['c']
    """
    order = sorted(scores, key=lambda name: (not math.isfinite(scores[name]), scores[name]))
    return order[max(1, math.ceil(keep * len(order))) :]
