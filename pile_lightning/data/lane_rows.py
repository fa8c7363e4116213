"""Rows from the windows of a lane: side by side wherever documents end, or of whole documents."""

from typing import Any, NamedTuple

import numpy as np

from pile_lightning.data.best_fit import best_fit, cut_documents
from pile_lightning.data.lanes import Encoded, Lane, Row, Tokens

__all__ = ["BestFitLane", "SplitLane"]


class SplitLane(Lane[Encoded]):
    """Rows side by side: each goes on where the one before ended, from window to window."""

    def next_row(self, length: int) -> Row | None:
        """Return the next row of ``length`` tokens and the one behind, or None at the end."""
        parts: list[Tokens] = []
        missing, num_bytes, behind = length, 0, self.common.start_id
        while missing and (document := self._item()) is not None:
            tokens, place = document.tokens, self.cursor.token
            part = tokens[place : place + missing]
            parts.append(part)
            missing -= len(part)
            end = place + len(part)
            num_bytes += document.bytes_ending_in(place, end)
            if end == len(tokens):
                # whichever document comes next, this is how it opens
                behind = self.common.start_id
                self.cursor = self.cursor._replace(item=self.cursor.item + 1, token=0)
            else:
                behind = int(tokens[end])
                self.cursor = self.cursor._replace(token=end)
        if not parts:
            return None
        tokens = np.concatenate([*parts, np.array([behind], parts[0].dtype)])
        return Row(tokens, num_bytes, self.cursor)

    def _arrange(self, documents: list[Encoded], key: tuple[int, ...]) -> list[Encoded]:
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
