"""Rows of one length from streams of documents, as the batches that modules consume.

A row shows spans of one domain's stream. ``SplitRows`` cuts a stream into windows side by side, one
a row, wherever documents end; ``BestFitRows`` (in ``best_fit_rows``) fits whole documents into a
row; ``ScoringRows`` lets windows overlap, so that every token is predicted exactly once and with
enough text before it.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pile_lightning.batch import TokenBatch
from pile_lightning.data.assemble import assemble
from pile_lightning.data.store import TokenStream

__all__ = ["Rows", "ScoringRows", "Spans", "SplitRows", "TrainingRows"]

Ints = npt.NDArray[np.int64]


class Spans(NamedTuple):
    """What a batch shows: which part of which stream stands where, each (spans,), in order."""

    row: Ints
    """Row of the batch."""
    place: Ints
    """Position in the row of the first token."""
    domain: Ints
    """Index of the stream."""
    start: Ints
    """First position of the stream in the row."""
    end: Ints
    """Behind the last one."""


@dataclass(frozen=True, kw_only=True)
class Rows(ABC):
    """Numbered rows of ``seq_len`` positions over one stream for each domain."""

    streams: Sequence[TokenStream]
    """The documents of each domain."""
    seq_len: int
    """Positions of a row."""
    start_id: int
    """The token that opens a document."""
    token_num_bytes: Ints | None
    """UTF-8 bytes behind each id; None counts a document's where its last token is predicted."""

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Number of rows over all domains."""

    @abstractmethod
    def spans(self, rows: Ints) -> Spans:
        """Return what rows from 0 to below ``num_rows`` show."""

    def batch(self, rows: Ints) -> TokenBatch:
        """Return rows as a batch; a number below 0 is a row that predicts nothing."""
        real = np.flatnonzero(rows >= 0)
        spans = self.spans(rows[real])
        if len(real) < len(rows):
            spans = spans._replace(row=real[spans.row])
        domain, length = np.zeros_like(rows), np.zeros_like(rows)
        domain[spans.row] = spans.domain
        # the last span of a row counts
        length[spans.row] = spans.place + spans.end - spans.start
        inner = spans.place > 0
        tokens = self._tokens(spans, len(rows))
        exact = self.token_num_bytes is not None
        return assemble(
            tokens,
            domain=domain,
            length=length,
            start_id=self.start_id,
            context=self._context(rows),
            joints=(spans.row[inner], spans.place[inner]) if inner.any() else None,
            token_num_bytes=self.token_num_bytes,
            num_bytes=None if exact else self._num_bytes(spans, rows, tokens),
        )

    def _context(self, rows: Ints) -> Ints | None:
        """Return how many positions at the start of each row predict nothing."""
        return None

    def _tokens(self, spans: Spans, num_rows: int) -> npt.NDArray[Any]:
        """Return the tokens of rows and the one behind each (rows, seq_len + 1)."""
        dtype = np.dtype(self.streams[0].dtype)
        # behind the last token of a stream stands the start of a document that never comes
        tokens = np.full((num_rows, self.seq_len + 1), self.start_id, dtype)
        memory = tokens.reshape(-1).view(np.uint8).data
        first = spans.row * (self.seq_len + 1) + spans.place
        # with the token behind, which the next span of the row, if there is one, replaces
        bounds = np.stack([first, first + spans.end - spans.start + 1]) * dtype.itemsize
        for domain, start, low, high in zip(
            spans.domain.tolist(), spans.start.tolist(), *bounds.tolist(), strict=True
        ):
            self.streams[domain].read_into(memory[low:high], start)
        return tokens

    def _num_bytes(self, spans: Spans, rows: Ints, tokens: npt.NDArray[Any]) -> Ints:
        """Return the bytes of the documents whose last token is predicted in each row."""
        num_bytes = np.zeros_like(rows)
        context = self._context(rows)
        scored = spans.start if context is None else spans.start + context[spans.row]
        for row, domain, start, end in zip(
            *(part.tolist() for part in (spans.row, spans.domain, scored, spans.end)), strict=True
        ):
            num_bytes[row] += self.streams[domain].bytes_ending_in(start + 1, end + 1)
        return num_bytes


@dataclass(frozen=True, kw_only=True)
class TrainingRows(Rows):
    """The rows of an epoch, those of the first domain first."""

    @property
    @abstractmethod
    def rows_by_domain(self) -> Ints:
        """Number of rows of each domain (domains,)."""

    @property
    @abstractmethod
    def num_dropped(self) -> int:
        """Tokens that are in no row."""

    @property
    def num_padding(self) -> int:
        """Positions of all rows that hold no token."""
        held = sum(stream.counts.tokens for stream in self.streams) - self.num_dropped
        return self.num_rows * self.seq_len - held

    @property
    def fill_by_domain(self) -> npt.NDArray[np.float64]:
        """Share of the positions that hold a token, for each domain (domains,)."""
        tokens = np.array([stream.counts.tokens for stream in self.streams])
        rows = self.rows_by_domain
        return np.where(rows > 0, np.minimum(1.0, tokens / np.maximum(1, rows * self.seq_len)), 1)

    def tokens_of(self, rows: npt.NDArray[Any]) -> Ints:
        """Return about how many tokens some rows of each domain hold (domains,)."""
        return np.rint(rows * self.seq_len * self.fill_by_domain).astype(np.int64)

    @cached_property
    def _first_rows(self) -> Ints:
        """The first row of each domain, and behind the last one."""
        return np.concatenate([[0], np.cumsum(self.rows_by_domain)])

    @property
    def num_rows(self) -> int:
        """Number of rows of an epoch."""
        return int(self._first_rows[-1])

    def domain_of(self, rows: Ints) -> Ints:
        """Return the domain of each row."""
        return np.asarray(np.searchsorted(self._first_rows, rows, side="right") - 1)


@dataclass(frozen=True, kw_only=True)
class SplitRows(TrainingRows):
    """Rows side by side: every token in one row, but for a remainder at the end of each domain."""

    @cached_property
    def rows_by_domain(self) -> Ints:
        """Number of rows of each domain (domains,)."""
        counts = [max(0, stream.counts.tokens - 1) // self.seq_len for stream in self.streams]
        return np.array(counts, np.int64)

    @property
    def num_dropped(self) -> int:
        """Tokens at the ends of domains that fill no row."""
        return sum(stream.counts.tokens for stream in self.streams) - self.num_rows * self.seq_len

    def spans(self, rows: Ints) -> Spans:
        """Return what rows show: one window each."""
        domain = self.domain_of(rows)
        start = (rows - self._first_rows[domain]) * self.seq_len
        return Spans(np.arange(len(rows)), np.zeros_like(rows), domain, start, start + self.seq_len)


class _Windows(NamedTuple):
    domain: Ints
    start: Ints
    scored: Ints
    """First position whose next token is predicted; the positions before are context."""
    end: Ints


@dataclass(frozen=True, kw_only=True)
class ScoringRows(Rows):
    """Rows that together predict every token of every document, and its end, exactly once.

    A window goes on where the one before ended. Where that cuts a document, the window opens with
    up to ``seq_len - stride`` of the document's tokens again, as context: so each token is
    predicted from all of its document, or from at least that many tokens.
    """

    stride: int
    """New positions in a row that starts inside a long document, from 1 to ``seq_len``."""

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self._windows.start)

    @cached_property
    def _windows(self) -> _Windows:
        parts = [
            (domain, *window)
            for domain, stream in enumerate(self.streams)
            for window in self._windows_of(stream)
        ]
        return _Windows(*np.array(parts, dtype=np.int64).reshape(-1, 4).T)

    def _windows_of(self, stream: TokenStream) -> list[tuple[int, int, int]]:
        starts = [0, *stream.ends.tolist()]
        windows, scored = [], 0
        while scored < stream.counts.tokens:
            document = starts[bisect_right(starts, scored) - 1]
            start = max(document, scored - (self.seq_len - self.stride))
            end = min(start + self.seq_len, stream.counts.tokens)
            windows.append((start, scored, end))
            scored = end
        return windows

    def spans(self, rows: Ints) -> Spans:
        """Return what rows show: one window each."""
        domain, start, _, end = (part[rows] for part in self._windows)
        return Spans(np.arange(len(rows)), np.zeros_like(rows), domain, start, end)

    def _context(self, rows: Ints) -> Ints:
        windows = self._windows
        context = windows.scored - windows.start
        return np.where(rows < 0, 0, context[rows])
