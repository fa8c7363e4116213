"""Encoding takes all cores, but one in a worker process, whichever way that was started."""

import multiprocessing
import warnings

import pytest
from torch.utils.data import DataLoader, Dataset

from pile_lightning.data import cores
from pile_lightning.data.cores import num_encoding_threads, without_tokenizer_threads


@pytest.fixture(autouse=True)
def seven_cores(monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    monkeypatch.setattr(cores, "default_num_proc", lambda: 7)


class Threads(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return num_encoding_threads()


def test_all_cores_here():
    assert num_encoding_threads() == 7


def test_one_where_that_is_asked_for(monkeypatch):
    for value in ("false", "0", "OFF"):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", value)
        assert num_encoding_threads() == 1
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    assert num_encoding_threads() == 7


def test_the_switch_is_put_back():
    with without_tokenizer_threads():
        assert num_encoding_threads() == 1
    assert num_encoding_threads() == 7


def test_one_in_a_worker_of_a_loader():
    assert [int(threads) for threads in DataLoader(Threads(), num_workers=1)] == [1]


def test_one_in_a_daemon():
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = context.Process(
            target=lambda: theirs.send(num_encoding_threads()), args=(), daemon=True
        )
        process.start()
    assert ours.recv() == 1
    process.join()
