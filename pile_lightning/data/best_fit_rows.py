"""``BestFitRows``: rows of whole documents, as a pack puts them together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pile_lightning.data.packing import Spans, TrainingRows
from pile_lightning.data.packs import Pack

__all__ = ["BestFitRows"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BestFitRows(TrainingRows):
    """Rows in which no document is split that fits one; what is left of a row is padding.

    A longer document has rows of its own, and its last piece is packed like a document. The last
    token of each predicts its end, whatever comes next in the row.
    """

    pack: Pack
    """Which documents share a row."""

    @property
    def rows_by_domain(self) -> Ints:
        """Number of rows of each domain (domains,)."""
        return np.array(self.pack.rows_by_domain, np.int64)

    @property
    def num_dropped(self) -> int:
        """No token is left out."""
        return 0

    def spans(self, rows: Ints) -> Spans:
        """Return what rows show: the pieces of each, side by side."""
        pack = self.pack
        pack.check_length()
        first = np.where(rows > 0, pack.row_ends[rows - 1], 0)
        count = pack.row_ends[rows] - first
        behind = np.cumsum(count)
        row = np.repeat(np.arange(len(rows)), count)
        piece = np.arange(len(row)) + np.repeat(first - (behind - count), count)
        start, length = pack.starts[piece], pack.lengths[piece].astype(np.int64)
        place = np.cumsum(length) - length
        place -= place[behind - count][row]
        return Spans(row, place, self.domain_of(rows)[row], start, start + length)

    def _num_bytes(self, spans: Spans, rows: Ints, tokens: npt.NDArray[Any]) -> Ints:
        """Return the bytes of the documents whose last token is predicted in each row."""
        length = spans.end - spans.start
        opens = tokens[spans.row, spans.place] == self.start_id
        # only a full row can stop before its document does
        ends = length < self.seq_len
        ends |= tokens[spans.row, spans.place + length] == self.start_id
        # a document may be its start token alone, which nothing predicts
        first, behind = spans.start + ~opens, spans.end + ~ends
        num_bytes = np.zeros_like(rows)
        for row, domain, low, high in zip(
            *(part.tolist() for part in (spans.row, spans.domain, first, behind)), strict=True
        ):
            num_bytes[row] += self.streams[domain].bytes_ending_in(low, high)
        return num_bytes
