"""Rows: every token where it belongs, once, with its document, position and bytes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.data.packing import Rows, ScoringRows, SplitRows
from tests.data.streams import BYTES, START, Documents, all_tokens, stream

documents = st.lists(st.lists(st.integers(1, 39), min_size=1, max_size=40), max_size=8)


def all_rows(rows: Rows) -> dict[str, np.ndarray]:
    batch = rows.batch(np.arange(rows.num_rows))
    return {name: tensor.numpy() for name, tensor in batch.items()}  # type: ignore[attr-defined]


def expected_ids(row: np.ndarray, length: int) -> tuple[list[int], list[int]]:
    """Document and position ids of a row, one position after the other."""
    document, position = 0, -1
    document_ids, position_ids = [], []
    for t, token in enumerate(row.tolist()):
        opens = token == START if t < length else t == length
        if opens and t > 0:
            document, position = document + 1, -1
        position += 1
        document_ids.append(document)
        position_ids.append(position)
    return document_ids, position_ids


@settings(max_examples=80, deadline=None)
@given(domains=st.lists(documents, min_size=1, max_size=3), seq_len=st.integers(1, 20))
@pytest.mark.parametrize("exact", [True, False])
def test_training_rows_hold_every_token_once_but_the_remainder(
    domains: list[Documents], seq_len: int, exact: bool
) -> None:
    streams = [stream(texts) for texts in domains]
    rows = SplitRows(
        streams=streams, seq_len=seq_len, start_id=START, token_num_bytes=BYTES if exact else None
    )
    batch = all_rows(rows)
    kept = 0
    for number, one in enumerate(streams):
        mine = batch["domain"] == number
        ids = batch["input_ids"][mine].ravel()
        labels = batch["labels"][mine].ravel()
        assert np.array_equal(ids, all_tokens(one)[: len(ids)])
        assert np.array_equal(labels, all_tokens(one)[1 : len(ids) + 1])
        assert one.counts.tokens - len(ids) <= seq_len
        kept += len(ids)
        if exact:
            assert batch["num_bytes"][mine].sum() == BYTES[labels].sum()
        else:
            whole = np.searchsorted(one.ends - 1, len(ids), side="right") if len(ids) else 0
            assert batch["num_bytes"][mine].sum() == one.num_bytes[:whole].sum()
    assert rows.num_dropped == sum(one.counts.tokens for one in streams) - kept
    for row in range(rows.num_rows):
        document_ids, position_ids = expected_ids(batch["input_ids"][row], seq_len)
        assert batch["document_ids"][row].tolist() == document_ids
        assert batch["position_ids"][row].tolist() == position_ids


@settings(max_examples=80, deadline=None)
@given(
    domains=st.lists(documents, min_size=1, max_size=3),
    seq_len=st.integers(1, 20),
    data=st.data(),
)
@pytest.mark.parametrize("exact", [True, False])
def test_scoring_rows_predict_every_token_once_with_enough_context(
    domains: list[Documents], seq_len: int, data: st.DataObject, exact: bool
) -> None:
    stride = data.draw(st.integers(1, seq_len))
    streams = [stream(texts) for texts in domains]
    rows = ScoringRows(
        streams=streams,
        seq_len=seq_len,
        stride=stride,
        start_id=START,
        token_num_bytes=BYTES if exact else None,
    )
    batch = all_rows(rows)
    for number, one in enumerate(streams):
        mine = batch["domain"] == number
        labels = batch["labels"][mine]
        scored = labels[labels != IGNORE_INDEX]
        # every token of the stream but the first, and the end of the last document
        assert scored.tolist() == [
            *all_tokens(one)[1:].tolist(),
            *([START] if one.counts.tokens else []),
        ]
        assert batch["num_bytes"][mine].sum() == one.num_bytes.sum()
        where = [np.flatnonzero(row != IGNORE_INDEX) for row in labels]
        at = 0
        for row, positions in zip(np.flatnonzero(mine), where, strict=True):
            assert len(positions) > 0
            assert np.array_equal(positions, np.arange(positions[0], positions[-1] + 1))
            document = one.ends[np.searchsorted(one.ends, at, side="right") - 1] if at else 0
            document = document if document <= at else 0
            needed = min(at - document, seq_len - stride)
            assert batch["position_ids"][row, positions[0]] >= needed
            length = positions[-1] + 1
            ids = batch["input_ids"][row]
            assert np.array_equal(ids[:length], all_tokens(one)[at - positions[0] :][:length])
            document_ids, position_ids = expected_ids(ids, length)
            assert batch["document_ids"][row].tolist() == document_ids
            assert batch["position_ids"][row].tolist() == position_ids
            at += len(positions)


def test_short_documents_share_a_row_whatever_the_stride() -> None:
    short = stream([[1, 2, 3]] * 8)
    rows = ScoringRows(streams=[short], seq_len=8, stride=1, start_id=START, token_num_bytes=BYTES)
    assert rows.num_rows == 4


def test_a_long_document_is_scored_with_the_stride() -> None:
    long = stream([[1] * 29])
    rows = ScoringRows(streams=[long], seq_len=10, stride=4, start_id=START, token_num_bytes=BYTES)
    scored = (rows.batch(np.arange(rows.num_rows))["labels"] != IGNORE_INDEX).sum(1)
    assert scored.tolist() == [10, 4, 4, 4, 4, 4]


def test_missing_rows_predict_nothing() -> None:
    rows = SplitRows(streams=[stream([[5] * 30])], seq_len=4, start_id=START, token_num_bytes=BYTES)
    batch = rows.batch(np.array([2, -1, 0]))
    assert (batch["labels"][1] == IGNORE_INDEX).all()
    assert batch["num_bytes"].tolist() == [20, 0, 20]
    assert batch["position_ids"][1].tolist() == [0, 1, 2, 3]
    for i, row in ((0, 2), (2, 0)):
        alone = rows.batch(np.array([row]))
        assert all((alone[name][0] == batch[name][i]).all() for name in batch)  # type: ignore[literal-required]


def test_a_stream_is_pickled_without_its_tokens() -> None:
    import pickle

    long = stream([[1] * 30_000] * 3)
    assert long.ends[-1] == long.read(0, 10**6).size
    assert len(pickle.dumps(long)) < 1000


def test_documents_of_a_stream() -> None:
    texts = [[1, 2], [3], [4, 5, 6]]
    assert [ids.tolist() for ids in stream(texts).documents()] == texts
    assert all(a != b for a, b in pairwise(texts))
