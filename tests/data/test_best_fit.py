"""Best fit: what the textbook's loop packs, for a million documents in a second."""

import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pile_lightning.data.best_fit import best_fit, cut_documents

LENGTHS = st.lists(st.integers(1, 60), max_size=60)


def rows_of(lengths: list[int], capacity: int) -> list[list[int]]:
    packed = best_fit(np.array(lengths, np.int64), capacity=capacity)
    ends = packed.row_ends.tolist()
    return [packed.items[a:b].tolist() for a, b in zip([0, *ends], ends, strict=False)]


def textbook(lengths: list[int], capacity: int) -> list[int]:
    """Return the room that best-fit decreasing leaves in each row, one item after the other."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else capacity) - length)
    return sorted(rooms)


def next_fit(lengths: list[int], capacity: int) -> int:
    """Return the rows of a reader that opens a new one when a document does not fit the last."""
    rows, room = 0, 0
    for length in lengths:
        if length > room:
            rows, room = rows + 1, capacity
        room -= length
    return rows


@settings(max_examples=300, deadline=None)
@given(lengths=LENGTHS, more=st.integers(0, 80))
def test_rooms_are_those_of_the_textbook(lengths: list[int], more: int) -> None:
    capacity = max(lengths, default=1) + more
    rows = rows_of(lengths, capacity)
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    assert all(rows)
    rooms = [capacity - sum(lengths[item] for item in row) for row in rows]
    assert sorted(rooms) == textbook(lengths, capacity)


@given(lengths=LENGTHS, seq_len=st.integers(1, 70))
def test_long_documents_are_cut_into_full_rows_and_a_rest(lengths: list[int], seq_len: int) -> None:
    ends = np.cumsum(np.array(lengths, np.int64))
    starts, pieces = cut_documents(ends - lengths, np.array(lengths, np.int64), seq_len=seq_len)
    covered = [range(a, a + n) for a, n in zip(starts.tolist(), pieces.tolist(), strict=True)]
    assert [place for piece in covered for place in piece] == list(range(sum(lengths)))
    assert max(pieces, default=0) <= seq_len
    behind = set((starts + pieces).tolist())
    for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True):
        # cut nowhere but at multiples of a row
        assert behind & set(range(start + 1, end)) == set(range(start + seq_len, end, seq_len))


def test_lengths_that_fit_no_row() -> None:
    for lengths in ([5, 9], [0, 3]):
        with pytest.raises(ValueError, match=r"do not fit rows of 8; give lengths between 1 and 8"):
            best_fit(np.array(lengths), capacity=8)


def test_real_text_is_packed_better_than_by_next_fit() -> None:
    folder = Path(sysconfig.get_paths()["stdlib"])
    sizes = np.array([path.stat().st_size // 4 + 1 for path in sorted(folder.glob("*/*.py"))])
    for seq_len in (256, 1024, 4096):
        _, pieces = cut_documents(np.cumsum(sizes) - sizes, sizes, seq_len=seq_len)
        best = len(best_fit(pieces, capacity=seq_len).row_ends)
        # and the cut into rows, which splits documents, is a lower bound
        assert sizes.sum() / seq_len <= best <= 1.01 * sizes.sum() / seq_len + 1
        assert best < next_fit(pieces.tolist(), seq_len)


def test_the_work_grows_with_the_lengths_and_not_with_the_documents() -> None:
    lengths = np.random.default_rng(0).integers(1, 1025, 1_000_000)
    packed = best_fit(lengths, capacity=1024)
    filled = np.add.reduceat(lengths[packed.items], np.r_[0, packed.row_ends[:-1]])
    assert filled.max() <= 1024
    assert filled.mean() > 0.998 * 1024
