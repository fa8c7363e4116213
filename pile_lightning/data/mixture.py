"""Rows of several domains in given shares: which domain, and which of its rows, as pure functions.

A pattern of 65,536 places is laid out once and repeated: each domain has its exact number of places
in it, spread as evenly as a golden-ratio sequence spreads them, so that every stretch of rows holds
the shares too. How many rows of a domain come before row i is then a division and a look-up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pile_lightning.data.order import rows_at

__all__ = ["MixedOrder", "Mixture", "MixtureStage", "natural_shares"]

Ints = npt.NDArray[np.int64]

_PLACES = 1 << 16
# odd, so that its multiples visit every place; near places / 1.618, so that they do it evenly
_STRIDE = 40503
_SLOTS = (np.arange(_PLACES) * _STRIDE) % _PLACES
_STRETCHES = 64
_NO_LIMIT = 1 << 62


class MixtureStage(NamedTuple):
    """Shares that hold from a row on."""

    start: int
    """First row of the stage."""
    shares: tuple[float, ...]
    """Share of each domain; they sum to 1."""


class _Span(NamedTuple):
    start: int
    counts: Ints
    """Places of each domain in the pattern (domains,)."""
    before: Ints
    """Rows of each domain before the span (domains,)."""


class Mixture:
    """An endless sequence of domains in given shares, which may change at given rows.

    Args:
        stages: At least one; the first starts at row 0.
        limits: Rows after which a domain is used up and its share goes to the others, in
            proportion; ``None`` for no limit.
        fill: Share of each domain's rows that counts, the rest being padding; by default all.

    Raises:
        ValueError: For stages out of order, or shares that are negative or sum to nothing.

    Example:
        >>> mixture = Mixture([MixtureStage(0, (0.75, 0.25))])
        >>> mixture.counts(1 << 16).tolist()  # exact in every round of the pattern, near elsewhere
        [49152, 16384]
    """

    def __init__(
        self,
        stages: Sequence[MixtureStage],
        *,
        limits: Sequence[int | None] | None = None,
        fill: Sequence[float] | None = None,
    ) -> None:
        starts = [stage.start for stage in stages]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(
                f"the stages of a mixture start at rows {starts}; the first has to start at 0 and "
                f"each later one after the one before"
            )
        self.stages = tuple(stages)
        """The shares as they were given, before any domain is used up."""
        num_domains = len(stages[0].shares)
        given = [None] * num_domains if limits is None else limits
        self._limits = np.array([_NO_LIMIT if limit is None else limit for limit in given])
        self._fill = np.ones(num_domains) if fill is None else np.array(fill)
        self._spans: list[_Span] = []
        self.num_rows: int | None = None
        """Rows until every domain is used up; None where there is no end."""
        before = np.zeros(num_domains, np.int64)
        for number, stage in enumerate(stages):
            end = starts[number + 1] if number + 1 < len(starts) else None
            before = self._add_stage(stage, end, before)
            if self.num_rows is not None:
                break

    def at(self, rows: Ints) -> tuple[Ints, Ints]:
        """Return the domain of each row, and how many rows of that domain come before it."""
        starts = np.array([span.start for span in self._spans])
        which = np.searchsorted(starts, rows, side="right") - 1
        domain, index = np.empty_like(rows), np.empty_like(rows)
        for number in np.unique(which):
            here = which == number
            domain[here], index[here] = _look_up(self._spans[number], rows[here])
        return domain, index

    def counts(self, num_rows: int) -> Ints:
        """Return how many of the first rows each domain has (domains,)."""
        span = [span for span in self._spans if span.start <= num_rows][-1]
        return _counts(span, num_rows)

    def describe(self) -> list[list[int]]:
        """Return where each span starts and its domains' places, in plain data."""
        return [[span.start, *span.counts.tolist()] for span in self._spans]

    def _add_stage(self, stage: MixtureStage, end: int | None, before: Ints) -> Ints:
        """Append the spans of a stage: a new one begins wherever a domain is used up."""
        start = stage.start
        while True:
            left = self._limits - before
            shares = np.where(left > 0, np.array(stage.shares) / self._fill, 0.0)
            if min(stage.shares) < 0 or not sum(stage.shares) > 0:
                raise ValueError(
                    f"shares of {list(stage.shares)} are no mixture; give each domain at least 0, "
                    f"and one of them more"
                )
            if not shares.sum() > 0:
                self.num_rows = start
                return before
            span = _Span(start, _largest_remainder(shares), before)
            self._spans.append(span)
            stop = _first_used_up(span, left)
            stop = end if stop is None or (end is not None and end < stop) else stop
            if stop is None:
                return before
            before = _counts(span, stop)
            start = stop
            if stop == end:
                return before


@lru_cache(maxsize=16)
def _domains(counts: bytes) -> npt.NDArray[Any]:
    """Return the domain of each place of a pattern (places,); few of many spans are in use.

    Args:
        counts: The span's, as bytes.
    """
    of_domain = np.frombuffer(counts, np.int64)
    # a narrow type, which numpy sorts in linear time
    narrow = np.uint16 if len(of_domain) <= 1 << 16 else np.uint32
    return np.repeat(np.arange(len(of_domain), dtype=narrow), of_domain)[_SLOTS]


@lru_cache(maxsize=16)
def _ranks(counts: bytes) -> Ints:
    """Return how many earlier places of a pattern have the same domain (places,)."""
    of_domain = np.frombuffer(counts, np.int64)
    first = np.cumsum(of_domain) - of_domain
    rank = np.empty(_PLACES, np.int64)
    order = np.argsort(_domains(counts), kind="stable")
    rank[order] = np.arange(_PLACES) - np.repeat(first, of_domain)
    return rank


def _largest_remainder(shares: npt.NDArray[np.float64]) -> Ints:
    """Share out the places; a domain with any share at all has at least one."""
    exact = shares / shares.sum() * _PLACES
    counts: Ints = np.maximum(np.floor(exact).astype(np.int64), shares > 0)
    rest = _PLACES - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[: max(0, rest)]] += 1
    for _ in range(-rest):  # the places that the smallest domains were given
        counts[np.argmax(counts)] -= 1
    return counts


def _look_up(span: _Span, rows: Ints) -> tuple[Ints, Ints]:
    counts = span.counts.tobytes()
    rounds, place = np.divmod(rows - span.start, _PLACES)
    domain = _domains(counts)[place].astype(np.int64)
    earlier = span.before[domain] + rounds * span.counts[domain]
    return domain, np.asarray(earlier + _ranks(counts)[place])


def _counts(span: _Span, num_rows: int) -> Ints:
    rounds, place = divmod(num_rows - span.start, _PLACES)
    domain = _domains(span.counts.tobytes())
    started = np.bincount(domain[:place], minlength=len(span.counts))
    counts: Ints = span.before + rounds * span.counts + started
    return counts


def _first_used_up(span: _Span, left: Ints) -> int | None:
    """Return the row behind the last one of the domain that is used up first; None for none.

    Args:
        span: Where the rows are.
        left: Rows that are left of each domain (domains,).
    """
    rounds, rank = np.divmod(left - 1, np.maximum(span.counts, 1))
    ends = (span.counts > 0) & (left < _NO_LIMIT >> 1)
    if not ends.any():
        return None
    first_round = int(rounds[ends].min())
    ends &= rounds == first_round
    domain = _domains(span.counts.tobytes()).astype(np.int64)
    # how often each domain had a place at the end of each stretch of the pattern
    size = _PLACES // _STRETCHES
    number = np.arange(_PLACES) // size
    table = np.bincount(number * len(ends) + domain, minlength=_STRETCHES * len(ends))
    reached = table.reshape(_STRETCHES, -1).cumsum(axis=0)
    stretch = int(((reached > rank) & ends).any(axis=1).argmax())
    earlier = reached[stretch - 1] if stretch else np.zeros_like(rank)
    within = domain[stretch * size : (stretch + 1) * size]
    places = [
        int(np.flatnonzero(within == one)[rank[one] - earlier[one]])
        for one in np.flatnonzero((reached[stretch] > rank) & ends)
    ]
    return span.start + first_round * _PLACES + stretch * size + min(places) + 1


@dataclass(frozen=True, kw_only=True)
class MixedOrder:
    """Rows of several domains: a mixture of domains, each in an order of its own.

    Example:
        >>> mixture = Mixture([MixtureStage(0, (0.5, 0.5))])
        >>> order = MixedOrder(mixture=mixture, num_rows=(10, 3), seed=0)
        >>> rows = order.row_at(np.arange(100))
        >>> sorted(rows[rows >= 10][:3].tolist())  # an epoch of the second domain
        [10, 11, 12]
    """

    mixture: Mixture
    """Which domain comes when."""
    num_rows: tuple[int, ...]
    """Rows of an epoch of each domain; those of the first come first."""
    seed: int
    """Of the domains' orders."""

    def row_at(self, positions: Ints) -> Ints:
        """Return the rows at positions of the stream (n,)."""
        domain, index = self.mixture.at(positions)
        num_rows = np.array(self.num_rows)
        first = np.cumsum(num_rows) - num_rows
        domains = np.arange(len(num_rows), dtype=np.uint64)
        seeds = np.array([self.seed % (1 << 64)], np.uint64) + (domains << np.uint64(32))
        rows = rows_at(index, num_rows=num_rows[domain], seed=seeds[domain])
        return np.asarray(first[domain] + rows)


def natural_shares(sizes: Mapping[str, float], *, temperature: float = 1.0) -> dict[str, float]:
    """Return shares in proportion to ``size ** (1 / temperature)``: above 1 evens them out.

    Source: Conneau and Lample, Cross-lingual Language Model Pretraining, 2019, with 1/alpha.

    Example:
        >>> natural_shares({"web": 900, "books": 100}, temperature=2.0)
        {'web': 0.75, 'books': 0.25}
    """
    if not temperature > 0:
        raise ValueError(
            f"temperature={temperature}: shares are sizes to the power 1/temperature; choose a "
            f"number above 0, 1 for the natural shares, more to even them out"
        )
    powers = {name: size ** (1 / temperature) for name, size in sizes.items()}
    return {name: power / sum(powers.values()) for name, power in powers.items()}
