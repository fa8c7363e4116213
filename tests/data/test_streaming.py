"""The stream: the same rows whoever reads them, every token once, and on from anywhere."""

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import islice
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pile_lightning.data.deal import Deal
from pile_lightning.data.lane_rows import BestFitLane
from pile_lightning.data.lanes import Cursor
from pile_lightning.data.share import Share
from pile_lightning.data.short_rows import ShortStage
from pile_lightning.data.streaming import Cursors, StreamLoader
from tests.data.lane_streams import BYTES, Numbered, stream, texts

BEST_FIT = partial(BestFitLane, seq_len=8)
# short in five steps of eight rows
SHORT = ShortStage(num_parts=4, end_row=33, batch_size=8)
PACKINGS = {"split": {}, "best fit": {"kind": BEST_FIT}, "short": {"stage": SHORT}}


class Reading:
    """A reader of some ranks, workers and micro-batches, that can stop and go on as another."""

    def __init__(self, batches, *, batch_size, ranks, workers, row=0, cursors=None):
        self.batches, self.row, self.batch_size = batches, row, batch_size
        self.parts = []
        if cursors is not None:
            batches = replace(batches, cursors=cursors)
        self.cursors = batches.cursors
        for rank in range(ranks):
            share = Share(num_rows=batch_size // ranks, rank=rank, num_ranks=ranks)
            for worker in range(workers):
                own = replace(batches, share=share, first_row=row)
                self.parts.append(self._worker(own, worker, workers))

    @staticmethod
    def _worker(batches, worker, workers):
        info = type("Info", (), {"id": worker, "num_workers": workers})()
        iterator = iter(batches)
        while True:
            with patch("pile_lightning.data.streaming.get_worker_info", return_value=info):
                piece = next(iterator)
            yield piece

    def read(self, count, *, ahead=0):
        """Return rows, and where the lanes are after them, having read further ahead."""
        batches = self.batches
        domains = len(batches.mixture.at(np.arange(1))[0]) and 8
        tracker = Cursors(num_lanes=batches.num_lanes, num_domains=domains)
        tracker.restart(
            np.zeros((batches.num_lanes, domains, 5), np.int64)
            if self.cursors is None
            else self.cursors
        )
        rows = []
        for number in range(count + ahead):
            pieces = [next(part) for part in self.parts]
            tracker.hand_out(pieces)
            if number < count:
                rows += [row for piece in pieces for row in piece.batch["input_ids"].tolist()]
        return rows, tracker.after(count).copy()


LAYOUTS = st.sampled_from(
    [(4, 1, 1), (8, 1, 1), (8, 2, 1), (8, 1, 4), (8, 2, 2), (4, 4, 1), (2, 1, 2), (8, 8, 1)]
)
SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=12).map(lambda s: (60, *s))


@settings(max_examples=12, deadline=None)
@given(
    sizes=SIZES,
    layouts=st.lists(LAYOUTS, min_size=2, max_size=4),
    stops=st.lists(st.integers(1, 12), min_size=3, max_size=3),
    ahead=st.integers(0, 3),
    window=st.sampled_from([1, 64, 4096]),
    share=st.sampled_from([0.5, 0.9]),
)
@pytest.mark.parametrize("packing", PACKINGS)
def test_rows_are_the_same_for_all_layouts_and_go_on_after_every_stop(
    packing, sizes, layouts, stops, ahead, window, share
):
    sources = Numbered(name="a", sizes=sizes), Numbered(name="b", sizes=(70, 5))
    batches = stream(
        *sources, num_lanes=8, window=window, shares=(share, 1 - share), **PACKINGS[packing]
    )
    whole, _ = Reading(batches, batch_size=8, ranks=1, workers=1).read(20)
    rows, cursors, done = [], None, 0
    for (batch_size, ranks, workers), stop in zip(layouts, stops, strict=False):
        reading = Reading(
            batches,
            batch_size=batch_size,
            ranks=ranks,
            workers=workers,
            row=done,
            cursors=cursors,
        )
        steps = stop * 8 // batch_size  # whole batches of eight: where layouts may change
        steps = min(steps, (160 - done) // batch_size)
        read, cursors = reading.read(steps, ahead=ahead)
        rows += read
        done += steps * batch_size
    assert rows == whole[: len(rows)]
    assert sum(map(len, rows)) == 8 * done


@settings(max_examples=12, deadline=None)
@given(sizes=SIZES, num_lanes=st.sampled_from([1, 3, 8, 32]), window=st.sampled_from([1, 200]))
@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("exact", [True, False])
def test_one_epoch_has_every_document_whole_and_once_and_nothing_held_out(
    parts, exact, sizes, num_lanes, window
):
    source = Numbered(name="a", sizes=sizes)
    stage = ShortStage(num_parts=parts, end_row=9, batch_size=num_lanes)
    batches = stream(source, num_lanes=num_lanes, window=window, once=True, stage=stage)
    if not exact:
        batches = replace(batches, token_num_bytes=None)
    lanes = {lane: [] for lane in range(num_lanes)}
    num_bytes = 0
    for piece in batches:
        if not piece.num_tokens:
            break
        for row, lane in enumerate(piece.lanes.tolist()):
            labels = piece.batch["labels"][row]
            kept = labels != -100
            assert not kept.any() or kept[: int(kept.sum())].all()
            lanes[lane] += piece.batch["input_ids"][row][kept].tolist()
        num_bytes += int(piece.batch["num_bytes"].sum())
    found = Counter()
    for tokens in lanes.values():
        documents = BYTES.decode(np.array(tokens)) if not tokens else split(tokens)
        found.update(documents)
    assert found == texts(source)
    assert num_bytes == sum(len(text) * count for text, count in texts(source).items())


def split(tokens):
    """Decode the documents of a lane's tokens, each of which opens with the start token."""
    assert tokens[0] == BYTES.start_id
    starts = [i for i, token in enumerate(tokens) if token == BYTES.start_id]
    return [
        BYTES.decode(tokens[a + 1 : b])
        for a, b in zip(starts, [*starts[1:], len(tokens)], strict=True)
    ]


def test_epochs_of_a_lane_have_the_same_documents_in_another_order():
    source = Numbered(name="a", sizes=(30, 20, 10))
    lane = next(iter(lanes_of(source, num_lanes=1)))
    epochs = {0: [], 1: [], 2: []}
    while lane.cursor.epoch < 2:
        row = lane.next_row(1)
        epochs[row.cursor.epoch].append(int(row.tokens[0]))
    first, second = split(epochs[0]), split(epochs[1])
    assert Counter(first) == Counter(second) == texts(source)
    assert first != second


def lanes_of(*sources, num_lanes):
    batches = stream(*sources, num_lanes=num_lanes)
    return (batches.open_lane(0, lane, Cursor()) for lane in range(num_lanes))


def test_a_lane_without_documents_says_so():
    lane = list(lanes_of(Numbered(name="a", sizes=(2,)), num_lanes=8))[7]
    with pytest.raises(ValueError, match=r"lane 7 of 8 finds no document .* set num_lanes lower"):
        lane.next_row(8)


@pytest.mark.parametrize("packing", PACKINGS)
def test_real_workers_give_the_rows_of_none(packing):
    source = Numbered(name="a", sizes=(50, 20, 30))
    batches = stream(source, num_lanes=8, **PACKINGS[packing])
    start = partial(lambda: (0, np.zeros((8, 1, 5), np.int64)))
    rows = {}
    for workers in (0, 2, 3):
        loader = StreamLoader(
            batches,
            start=start,
            cursors=Cursors(num_lanes=8, num_domains=1),
            num_workers=workers,
        )
        rows[workers] = [batch["input_ids"].tolist() for batch in islice(loader, 12)]
    assert rows[0] == rows[2] == rows[3]


def test_every_lane_has_its_own_documents_and_all_together_have_all():
    source = Numbered(name="a", sizes=(9, 50, 3, 0, 17))
    for num_lanes in (1, 4, 16, 64):
        deal = Deal(shards=source.shards(), num_lanes=num_lanes, seed=1)
        seen = Counter(
            (unit.shard, record)
            for units in deal.units(5)
            for unit in units
            for record in range(unit.stripe, source.sizes[unit.shard], unit.num_stripes)
        )
        assert seen == Counter((s, r) for s, size in enumerate(source.sizes) for r in range(size))
