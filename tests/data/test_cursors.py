"""What the loader of a stream remembers: where lanes are, and not what they gave."""

import gc
import weakref
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from pile_lightning.data import Document, StreamedText
from pile_lightning.data.streaming import StreamLoader


class Sums(StreamedText):
    def documents(self):
        for i in range(500):
            yield Document(f"{i} + {i} = {2 * i}", f"sum {i}")


@pytest.fixture
def loader(tmp_path: Path) -> StreamLoader:
    data = Sums(tokenizer="byte", seq_len=16, batch_size=4, num_lanes=4, cache_dir=str(tmp_path))
    data.prepare_data()
    return data.train_dataloader()


def test_no_batch_stays_in_memory(loader: StreamLoader) -> None:
    loader.num_done = lambda: 0
    given = [weakref.ref(batch["input_ids"]) for batch in islice(loader, 50)]
    gc.collect()
    assert not any(made() is not None for made in given)


def test_cursors_are_kept_until_training_is_done_with_them(loader: StreamLoader) -> None:
    loader.num_done = lambda: 0
    for _ in islice(loader, 40):
        pass
    expected = loader.cursors.after(38).copy()
    trained = 0
    loader.num_done = lambda: trained
    for number, _ in enumerate(islice(loader, 40), 1):
        trained = max(0, number - 3)
        assert len(loader.cursors._pending) <= 5
    assert np.array_equal(loader.cursors.after(38), expected)
    assert expected.any()


def test_nothing_is_kept_where_nobody_asks(loader: StreamLoader) -> None:
    assert loader.num_done is None  # without a trainer
    for _ in islice(loader, 50):
        pass
    assert not loader.cursors._pending
    assert not loader.cursors.settled.any()
