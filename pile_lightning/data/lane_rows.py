"""Rows from the windows of a lane: side by side wherever documents end, or of whole documents."""

from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from pile_lightning.data.best_fit import best_fit, cut_documents
from pile_lightning.data.lanes import Cursor, Encoded, Lane, Row, Tokens

__all__ = ["BestFitLane", "SplitLane"]


class SplitLane(Lane[Encoded]):
    """Rows side by side: each goes on where the one before ended, from window to window."""

    _starts: list[int]
    """Where each document of the window begins in its tokens."""

    def next_row(self, length: int) -> Row | None:
        """Return the next row of ``length`` tokens and the one behind, or None at the end."""
        parts: list[Tokens] = []
        missing, num_bytes = length, 0
        while missing and self._item() is not None:
            start = self._starts[self.cursor.item] + self.cursor.token
            end = min(start + missing, len(self._tokens))
            missing -= end - start
            num_bytes += self._move_to(end)
            parts.append(self._tokens[start : end + 1])  # with the one behind, if that is here
        if not parts:
            return None
        tokens = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if len(tokens) == length - missing:
            # whichever document comes next, this is how it opens
            tokens = np.append(tokens, np.array([self.common.start_id], tokens.dtype))
        return Row(tokens, num_bytes, self.cursor)

    def _move_to(self, end: int) -> int:
        """Move the cursor to a place in the window; return the bytes of the documents it passes."""
        epoch, unit, record, item, place = self.cursor
        num_bytes = 0
        while item < len(self._window):
            document = self._window[item]
            stop = min(len(document.tokens), end - self._starts[item])
            num_bytes += document.bytes_ending_in(place, stop)
            place = stop
            if stop < len(document.tokens):
                break
            item, place = item + 1, 0
        self.cursor = Cursor(epoch, unit, record, item, place)
        return num_bytes

    def _arrange(self, documents: list[Encoded], key: tuple[int, ...]) -> list[Encoded]:
        ends = accumulate(len(document.tokens) for document in documents)
        self._starts = [0, *ends]
        return documents


class _Piece(NamedTuple):
    document: Encoded
    start: int
    end: int

    def tokens(self) -> Tokens:
        return self.document.tokens[self.start : self.end]


class BestFitLane(Lane[list[_Piece]]):
    """Rows of whole documents of one window: nothing is split that fits a row.

    Args:
        seq_len: Tokens of a row, at most.
        **common: As in ``Lane``.
    """

    def __init__(self, *args: Any, seq_len: int, **common: Any) -> None:
        super().__init__(*args, **common)
        self.seq_len = seq_len

    def next_row(self, length: int) -> Row | None:
        """Return the next row of up to ``seq_len`` tokens and the one behind, or None at the end.

        Raises:
            ValueError: For rows of another length than the windows are packed for.
        """
        if length != self.seq_len:
            raise ValueError(
                f"a row of {length} is asked of a lane that packs rows of {self.seq_len}; give it "
                f"that seq_len"
            )
        pieces = self._item()
        if pieces is None:
            return None
        self.cursor = self.cursor._replace(item=self.cursor.item + 1)
        document, _, end = pieces[-1]
        behind = document.tokens[end : end + 1]
        if not len(behind):  # whichever document comes next, this is how it opens
            behind = np.array([self.common.start_id], document.tokens.dtype)
        return Row(
            np.concatenate([*(piece.tokens() for piece in pieces), behind]),
            sum(piece.document.bytes_ending_in(piece.start, piece.end) for piece in pieces),
            self.cursor,
            np.cumsum([piece.end - piece.start for piece in pieces[:-1]], dtype=np.int64).tolist(),
        )

    def _arrange(self, documents: list[Encoded], key: tuple[int, ...]) -> list[list[_Piece]]:
        if not documents:
            return []
        lengths = np.array([len(document.tokens) for document in documents])
        begins = np.cumsum(lengths) - lengths
        starts, lengths = cut_documents(begins, lengths, seq_len=self.seq_len)
        number = np.searchsorted(begins, starts, side="right") - 1
        starts -= begins[number]
        pieces = [
            _Piece(documents[n], start, start + length)
            for n, start, length in zip(
                number.tolist(), starts.tolist(), lengths.tolist(), strict=True
            )
        ]
        items, row_ends = best_fit(lengths, capacity=self.seq_len)
        rows = [row.tolist() for row in np.split(items, row_ends[:-1])]
        rows.sort(key=min)  # in the order of the text, where nothing shuffles them
        return self._shuffled([[pieces[item] for item in row] for row in rows], *key, 1)
