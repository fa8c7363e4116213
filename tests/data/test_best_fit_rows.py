"""Rows of whole documents: each once, unsplit where it fits, its end predicted, nothing else."""

import pickle
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.data import packs
from pile_lightning.data.best_fit_rows import BestFitRows
from tests.data.streams import BYTES, START, Documents, expected_pieces, pieces_of, stream

# an empty one is a text of which a tokenizer keeps nothing
documents = st.lists(st.lists(st.integers(1, 39), max_size=40), max_size=8)


@settings(max_examples=100, deadline=None)
@given(domains=st.lists(documents, min_size=1, max_size=3), seq_len=st.integers(1, 20))
@pytest.mark.parametrize(("exact", "at_once"), [(True, 1 << 20), (False, 1 << 20), (True, 4)])
def test_every_document_is_there_once_and_whole_where_it_fits(
    tmp_path_factory: pytest.TempPathFactory,
    domains: list[Documents],
    seq_len: int,
    exact: bool,
    at_once: int,
) -> None:
    streams = [stream(texts, bytes_more=0 if exact else 1) for texts in domains]
    with patch.object(packs, "_PIECES_AT_ONCE", at_once):
        pack = packs.write_pack(streams, tmp_path_factory.mktemp("pack"), seq_len=seq_len)
    rows = BestFitRows(
        streams=streams,
        seq_len=seq_len,
        start_id=START,
        token_num_bytes=BYTES if exact else None,
        pack=pack,
    )
    numbers = np.random.default_rng(seq_len).permutation(rows.num_rows)
    batch = rows.batch(numbers)
    assert rows.num_dropped == 0
    tokens = sum(one.counts.tokens for one in streams)
    assert int((batch["labels"] != IGNORE_INDEX).sum()) == tokens
    assert rows.num_padding == int((batch["labels"] == IGNORE_INDEX).sum())
    assert rows.domain_of(numbers).tolist() == batch["domain"].tolist()
    for domain, one in enumerate(streams):
        mine = batch["domain"] == domain
        rows_of_one = {key: batch[key][mine] for key in batch}  # type: ignore[literal-required]
        assert pieces_of(rows_of_one) == expected_pieces(domains[domain], seq_len, start=START)
        assert int(batch["num_bytes"][mine].sum()) == one.num_bytes.sum()
        assert int(mine.sum()) == rows.rows_by_domain[domain]
    if exact:
        scored = batch["labels"].numpy().clip(0)
        assert batch["num_bytes"].tolist() == BYTES[scored].sum(axis=1).tolist()


def small_rows(folder: Path) -> BestFitRows:
    streams = [stream([[1] * 5, [2] * 9, [3] * 2, [4] * 7])]
    pack = packs.write_pack(streams, folder, seq_len=8)
    return BestFitRows(streams=streams, seq_len=8, start_id=START, token_num_bytes=BYTES, pack=pack)


def test_the_rest_of_a_long_document_is_no_part_of_what_stands_before_it(tmp_path: Path) -> None:
    batch = small_rows(tmp_path).batch(np.arange(3))
    assert batch["input_ids"].tolist() == [
        [0, 2, 2, 2, 2, 2, 2, 2],
        [0, 4, 4, 4, 4, 4, 4, 4],
        [0, 1, 1, 1, 1, 1, 2, 2],
    ]
    assert batch["labels"].tolist() == [
        [2, 2, 2, 2, 2, 2, 2, 2],
        [4, 4, 4, 4, 4, 4, 4, 0],
        [1, 1, 1, 1, 1, 0, 2, 0],
    ]
    assert batch["document_ids"][2].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert batch["position_ids"][2].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]


def test_missing_rows_predict_nothing(tmp_path: Path) -> None:
    rows = small_rows(tmp_path)
    batch, whole = rows.batch(np.array([3, -1, 2])), rows.batch(np.array([3, 2]))
    assert (batch["labels"][1] == IGNORE_INDEX).all()
    assert batch["num_bytes"][1] == 0
    for key in whole:
        assert batch[key][::2].equal(whole[key])  # type: ignore[literal-required]


def test_rows_are_pickled_without_their_pack(tmp_path: Path) -> None:
    pack = packs.write_pack([stream([[1] * 5] * 300)], tmp_path, seq_len=8)
    starts = pack.starts.tolist()
    held = pickle.dumps(pack)
    assert len(held) < 1000
    assert pickle.loads(held).starts.tolist() == starts
