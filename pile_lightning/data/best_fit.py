"""Whole documents into rows: best-fit decreasing, for millions of them in seconds.

The longest go first, each into the fullest row that has room for it. Documents of one length, and
rows with the same room, are alike; so both are handled by their number, and the work in Python
depends on how many lengths there are, not on how many documents.

Source: Ding et al., Fewer Truncations Improve Language Modeling, 2024.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Packed", "best_fit", "cut_documents"]

Ints = npt.NDArray[np.int64]


class Packed(NamedTuple):
    """Items in rows."""

    items: Ints
    """Indices of the items, row by row, the longest of a row first (items,)."""
    row_ends: Ints
    """How many items are in a row and the rows before it (rows,)."""


class _Filled(NamedTuple):
    """Items of one length, put into rows that follow one another."""

    first_row: int
    items_a_row: int
    num_items: int


def best_fit(lengths: Ints, *, capacity: int) -> Packed:
    """Return rows of at most ``capacity`` in which items of the given lengths stand.

    Raises:
        ValueError: For a length that is not between 1 and ``capacity``.

    Example:
        >>> packed = best_fit(np.array([3, 5, 2, 4]), capacity=7)
        >>> [items.tolist() for items in np.split(packed.items, packed.row_ends[:-1])]
        [[1, 2], [3, 0]]
    """
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= capacity:
        raise ValueError(
            f"lengths from {lengths.min()} to {lengths.max()} do not fit rows of {capacity}; give "
            f"lengths between 1 and {capacity}"
        )
    sizes, counts = np.unique(lengths, return_counts=True)
    rooms = _Rooms(capacity)
    filled = [
        step
        for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True)
        for step in rooms.fill(size, count)
    ]
    first_row, items_a_row, num_items = np.array(filled, np.int64).reshape(-1, 3).T
    place = np.arange(len(lengths)) - np.repeat(np.cumsum(num_items) - num_items, num_items)
    row = np.repeat(first_row, num_items) + place // np.repeat(items_a_row, num_items)
    longest_first = np.argsort(-lengths, kind="stable")
    items = longest_first[np.argsort(row, kind="stable")]
    return Packed(items, np.cumsum(np.bincount(row, minlength=rooms.num_rows)))


class _Rooms:
    """How many rows have which room left."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.num_rows = 0
        self._rows: dict[int, list[tuple[int, int]]] = {}  # first row and number, by room
        # bit r: some row has room r; there is always another empty row
        self._any = 1 << capacity

    def fill(self, size: int, count: int) -> list[_Filled]:
        """Put items of one size into the fullest rows that have room for them."""
        steps = []
        while count:
            fitting = self._any >> size
            room = size + (fitting & -fitting).bit_length() - 1
            # what is left of a row is less than any room that fits: it takes the next item, too
            each = room // size
            first, rows = self._take(room, -(-count // each))
            steps.append(_Filled(first, each, min(count, rows * each)))
            full, rest = divmod(steps[-1].num_items, each)
            self._put(room - each * size, first, full)
            self._put(room - rest * size, first + full, int(rest > 0))
            count -= steps[-1].num_items
        return steps

    def _take(self, room: int, wanted: int) -> tuple[int, int]:
        if room == self.capacity:
            self.num_rows += wanted
            return self.num_rows - wanted, wanted
        first, rows = self._rows[room].pop()
        if not self._rows[room]:
            self._any ^= 1 << room
        self._put(room, first + wanted, rows - wanted)
        return first, min(rows, wanted)

    def _put(self, room: int, first: int, rows: int) -> None:
        if room and rows > 0:
            self._rows.setdefault(room, []).append((first, rows))
            self._any |= 1 << room


def cut_documents(starts: Ints, lengths: Ints, *, seq_len: int) -> tuple[Ints, Ints]:
    """Return the starts and lengths of documents, those above ``seq_len`` in full rows and a rest.

    Example:
        >>> cut_documents(np.array([0, 4]), np.array([4, 25]), seq_len=10)
        (array([ 0,  4, 14, 24]), array([ 4, 10, 10,  5]))
    """
    pieces = -(-lengths // seq_len)
    if len(lengths) == pieces.sum():
        return starts, lengths
    place = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    behind = np.minimum(seq_len, np.repeat(lengths, pieces) - place * seq_len)
    return np.repeat(starts, pieces) + place * seq_len, behind
