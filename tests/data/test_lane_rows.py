"""Rows of a lane that keep documents whole."""

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pile_lightning.data.lane_rows import BestFitLane
from pile_lightning.data.lanes import Cursor, Encoded
from tests.data.lane_streams import BYTES, Numbered, stream, texts
from tests.data.streams import expected_pieces, pieces_of

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=12).map(lambda s: (60, *s))


@settings(max_examples=12, deadline=None)
@given(
    sizes=SIZES,
    num_lanes=st.sampled_from([1, 3, 8, 32]),
    window=st.sampled_from([1, 200, 4096]),
    seq_len=st.sampled_from([8, 20, 64]),
)
@pytest.mark.parametrize("exact", [True, False])
def test_one_epoch_of_best_fit_has_every_document_once_and_whole_where_it_fits(
    exact, sizes, num_lanes, window, seq_len
):
    source = Numbered(name="a", sizes=sizes)
    kind = partial(BestFitLane, seq_len=seq_len)
    batches = stream(source, num_lanes=num_lanes, window=window, once=True, kind=kind)
    batches = replace(batches, seq_len=seq_len)
    if not exact:
        batches = replace(batches, token_num_bytes=None)
    found, num_bytes, num_tokens = Counter(), 0, 0
    for piece in batches:
        if not piece.num_tokens:
            break
        found += pieces_of(piece.batch)
        num_bytes += int(piece.batch["num_bytes"].sum())
        num_tokens += piece.num_tokens
    expected = Counter()
    for text, count in texts(source).items():
        expected += expected_pieces([[*text.encode()]] * count, seq_len)
    assert found == expected
    assert num_tokens == sum((len(text) + 1) * count for text, count in texts(source).items())
    assert num_bytes == sum(len(text) * count for text, count in texts(source).items())


def test_rows_of_a_window_come_in_another_order_each_epoch_or_in_that_of_the_text():
    source = Numbered(name="a", sizes=(40,))
    orders = {}
    for shuffle in (True, False):
        kind = partial(BestFitLane, seq_len=40)
        batches = stream(source, num_lanes=1, window=1 << 20, kind=kind, shuffle=shuffle)
        lane, rows = batches.open_lane(0, 0, Cursor()), {0: [], 1: []}
        while (row := lane.next_row(40)).cursor.epoch < 2:
            rows[row.cursor.epoch].append(row.tokens[:-1].tolist())
        orders[shuffle] = rows
    assert sorted(map(len, orders[True][0])) == sorted(map(len, orders[True][1]))
    assert orders[True][0] != orders[True][1]
    assert orders[False][0] == orders[False][1]
    lane, key = batches.open_lane(0, 0, Cursor()), (1, 2)
    lane.common = replace(lane.common, shuffle=True)
    documents = [Encoded(np.full(1 + i, i), i) for i in range(40)]
    first, again, other = (
        [[piece.document.num_bytes for piece in row] for row in lane._arrange(documents, one)]
        for one in (key, key, (1, 3))
    )
    assert first == again != other
    first = BYTES.decode(np.array(orders[False][0][0]))
    assert "a/0:0 " in first


def test_a_lane_packs_rows_of_one_length():
    kind = partial(BestFitLane, seq_len=8)
    batches = stream(Numbered(name="a", sizes=(40,)), num_lanes=1, kind=kind)
    with pytest.raises(ValueError, match=r"a row of 4 is asked of a lane that packs rows of 8"):
        batches.open_lane(0, 0, Cursor()).next_row(4)
