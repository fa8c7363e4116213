"""Rows of one length from streams of documents, as the batches that modules consume.

A row is a window of one domain's stream: its documents follow one another, cut where the row ends.
``TrainingRows`` cuts a stream into windows side by side; ``ScoringRows`` lets windows overlap, so
that every token is predicted exactly once and with enough text before it.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pile_lightning.batch import IGNORE_INDEX, TokenBatch
from pile_lightning.data.store import TokenStream

__all__ = ["Rows", "ScoringRows", "TrainingRows", "Windows", "assemble"]

Ints = npt.NDArray[np.int64]


class Windows(NamedTuple):
    """Which part of which stream each row of a batch shows, each (batch,)."""

    domain: Ints
    """Index of the stream."""
    start: Ints
    """First position of the stream in the row."""
    scored: Ints
    """First position whose next token is predicted; the positions before are context."""
    end: Ints
    """Behind the last position; what is left of the row is padding."""


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
    def windows(self, rows: Ints) -> Windows:
        """Return what rows below ``num_rows`` show."""

    def batch(self, rows: Ints) -> TokenBatch:
        """Return rows as a batch; a number below 0 is a row that predicts nothing."""
        missing = rows < 0
        if missing.any():
            real = self.windows(rows[~missing])
            windows = Windows(*(np.zeros(len(rows), np.int64) for _ in Windows._fields))
            for all_rows, real_rows in zip(windows, real, strict=True):
                all_rows[~missing] = real_rows
        else:
            windows = self.windows(rows)
        tokens = self._tokens(windows)
        return assemble(
            tokens,
            domain=windows.domain,
            length=windows.end - windows.start,
            context=windows.scored - windows.start,
            start_id=self.start_id,
            num_bytes=self._num_bytes(windows, tokens),
        )

    def _tokens(self, windows: Windows) -> Ints:
        """Return the tokens of the windows and the one behind each (batch, seq_len + 1)."""
        shape = len(windows.start), self.seq_len + 1
        # behind the last token of a stream stands the start of a document that never comes
        tokens = np.full(shape, self.start_id, dtype=np.int64)
        bounds = windows.domain.tolist(), windows.start.tolist(), windows.end.tolist()
        for row, domain, start, end in zip(tokens, *bounds, strict=True):
            window = self.streams[domain].read(start, end + 1)
            row[: len(window)] = window
        return tokens

    def _num_bytes(self, windows: Windows, tokens: Ints) -> Ints:
        if self.token_num_bytes is not None:
            num_bytes = self.token_num_bytes.take(tokens[:, 1:])
            context, length = windows.scored - windows.start, windows.end - windows.start
            if context.any() or (length < self.seq_len).any():
                position = np.arange(self.seq_len)
                num_bytes *= (position >= context[:, None]) & (position < length[:, None])
            total: Ints = num_bytes.sum(axis=1)
            return total
        sizes = [
            _bytes_ending_in(self.streams[domain], scored + 1, end + 1)
            for domain, _, scored, end in zip(*(part.tolist() for part in windows), strict=True)
        ]
        return np.array(sizes, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class TrainingRows(Rows):
    """Rows side by side: every token in one row, but for a remainder at the end of each domain."""

    @cached_property
    def rows_by_domain(self) -> Ints:
        """Number of rows of each domain (domains,)."""
        counts = [max(0, stream.counts.tokens - 1) // self.seq_len for stream in self.streams]
        return np.array(counts, np.int64)

    @cached_property
    def _first_rows(self) -> Ints:
        """The first row of each domain, and behind the last one."""
        return np.concatenate([[0], np.cumsum(self.rows_by_domain)])

    @property
    def num_rows(self) -> int:
        """Number of rows of an epoch."""
        return int(self._first_rows[-1])

    @property
    def num_dropped(self) -> int:
        """Tokens at the ends of domains that fill no row."""
        return sum(stream.counts.tokens for stream in self.streams) - self.num_rows * self.seq_len

    def windows(self, rows: Ints) -> Windows:
        """Return what rows show."""
        domain = np.searchsorted(self._first_rows, rows, side="right") - 1
        start = (rows - self._first_rows[domain]) * self.seq_len
        return Windows(domain, start, start, start + self.seq_len)


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
    def _windows(self) -> Windows:
        parts = [
            (domain, *window)
            for domain, stream in enumerate(self.streams)
            for window in self._windows_of(stream)
        ]
        return Windows(*np.array(parts, dtype=np.int64).reshape(-1, 4).T)

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

    def windows(self, rows: Ints) -> Windows:
        """Return what rows show."""
        return Windows(*(part[rows] for part in self._windows))


def assemble(
    tokens: Ints,
    *,
    domain: Ints,
    length: Ints,
    context: Ints,
    start_id: int,
    num_bytes: Ints,
) -> TokenBatch:
    """Make a batch of rows of tokens and the one behind each (batch, seq + 1).

    Args:
        tokens: What the rows show; whatever stands behind their length is padding.
        domain: Of each row (batch,).
        length: Positions of each row that are no padding (batch,).
        context: Positions at the start of each row that predict nothing (batch,).
        start_id: The token that opens a document.
        num_bytes: UTF-8 bytes behind the predicted tokens of each row (batch,).
    """
    input_ids, labels = tokens[:, :-1].copy(), tokens[:, 1:].copy()
    opens = input_ids == start_id
    if (length < labels.shape[1]).any() or context.any():
        position = np.arange(labels.shape[1])
        padding = position >= length[:, None]
        labels[padding | (position < context[:, None])] = IGNORE_INDEX
        input_ids[padding] = start_id
        opens = np.where(padding, position == length[:, None], opens)
    document_ids, position_ids = _documents(opens)
    return TokenBatch(
        input_ids=torch.from_numpy(input_ids),
        labels=torch.from_numpy(labels),
        position_ids=torch.from_numpy(position_ids),
        document_ids=torch.from_numpy(document_ids),
        domain=torch.from_numpy(domain),
        num_bytes=torch.from_numpy(num_bytes),
    )


def _documents(opens: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Return document and position ids (batch, seq), given where documents open."""
    seq = opens.shape[1]
    opens[:, 0] = True  # the first document is number 0, whether it opens here or went on
    # by document, not by position: sums over positions took four times as long
    first = np.flatnonzero(opens)
    length = np.diff(first, append=opens.size)
    number = np.arange(len(first)) - np.searchsorted(first, first // seq * seq)
    position = np.arange(opens.size) - np.repeat(first, length)
    return np.repeat(number, length).reshape(opens.shape), position.reshape(opens.shape)


def _bytes_ending_in(stream: TokenStream, first: int, behind: int) -> int:
    """Return the bytes of the documents whose last token is from ``first`` to before ``behind``."""
    return stream.bytes_ending_in(first, behind)
