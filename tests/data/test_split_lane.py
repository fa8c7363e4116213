"""Rows side by side: every token of a lane in order, and the bytes of every document once."""

from itertools import pairwise

import numpy as np
import pytest

from pile_lightning.data import ByteTokenizer, Document, Source
from pile_lightning.data.deal import Deal
from pile_lightning.data.lane_rows import SplitLane
from pile_lightning.data.lanes import Cursor, LaneSource

BYTES = ByteTokenizer()
TEXTS = ["a", "b" * 30, "c", "dd", "e", "f" * 7, "g", "hh", "i" * 12]


class Few(Source):
    def documents(self):
        return (Document(text, text) for text in TEXTS)

    def fingerprint(self):
        return "few"


def lane(cursor=Cursor(), *, window=8):  # noqa: B008
    source = Few(name="few")
    common = LaneSource(
        source=source,
        deal=Deal(shards=source.shards(), num_lanes=1, seed=3),
        start_id=BYTES.start_id,
        held_out_below=0,
        window_bytes=window,
        once=True,
    )
    return SplitLane(common, lane=0, encode=BYTES.encode_batch, cursor=cursor)


def rows_of(lane, length):
    return list(iter(lambda: lane.next_row(length), None))


@pytest.mark.parametrize("window", [1, 8, 40, 1000])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 31, 500])
def test_rows_follow_one_another_and_bytes_add_up(length, window):
    rows = rows_of(lane(window=window), length)
    assert all(len(row.tokens) == length + 1 for row in rows[:-1])
    for row, after in pairwise(rows):
        assert row.tokens[-1] == after.tokens[0]  # the one behind opens the next
    assert rows[-1].tokens[-1] == BYTES.start_id
    tokens = np.concatenate([row.tokens[:-1] for row in rows])
    assert sorted(BYTES.decode(part) for part in np.split(tokens, starts(tokens))[1:]) == TEXTS
    assert sum(row.num_bytes for row in rows) == len("".join(TEXTS))


def starts(tokens):
    return np.flatnonzero(tokens == BYTES.start_id)


@pytest.mark.parametrize("window", [1, 8, 1000])
def test_rows_go_on_from_every_cursor(window):
    rows = rows_of(lane(window=window), 3)
    for number, row in enumerate(rows):
        rest = rows_of(lane(row.cursor, window=window), 3)
        assert [r.tokens.tolist() for r in rest] == [r.tokens.tolist() for r in rows[number + 1 :]]
        assert [r.num_bytes for r in rest] == [r.num_bytes for r in rows[number + 1 :]]
