"""``TextData`` is built once: by whoever was killed, by several at once, within little memory."""

import os
import shutil
import signal
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from pile_lightning.data import Document, Skipped, TextData
from pile_lightning.data.store import TokenStore
from tests.data.text_of_numbers import FORK, numbers, texts_of

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def test_prepared_once_and_again_when_something_changes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = tmp_path / "text"
    text.mkdir()
    for i in range(30):
        (text / f"{i}.txt").write_text(f"text {i}")

    def path(**settings: object) -> Path:
        defaults = {"sources": str(text), "tokenizer": "byte", "cache_dir": str(tmp_path / "c")}
        data = TextData(**(defaults | settings))  # type: ignore[arg-type]
        data.prepare_data()
        return data.store_path

    first = path()
    before = (first / "manifest.json").stat().st_mtime_ns
    assert path(seq_len=8, batch_size=2, seed=5) == first
    assert (first / "manifest.json").stat().st_mtime_ns == before
    (text / "30.txt").write_text("one more")
    others = [path(), path(val_fraction=0.3), path(tokenizer="bpe:300")]
    assert len({first, *others}) == 4
    assert not log.exists()


def test_a_moved_cache_and_moved_files_are_the_same_data(tmp_path: Path, folder: Path) -> None:
    text = shutil.copytree(folder / "code", tmp_path / "code")
    one = TextData(str(text), tokenizer="bpe:300", seq_len=8, cache_dir=str(tmp_path / "c"))
    one.prepare_data()
    state = one.state_dict()
    (tmp_path / "elsewhere").mkdir()
    text = shutil.move(text, tmp_path / "elsewhere/code")
    shutil.move(tmp_path / "c", tmp_path / "d")
    two = TextData(str(text), tokenizer="bpe:300", seq_len=8, cache_dir=str(tmp_path / "d"))
    assert TokenStore.exists(two.store_path)
    assert two.fingerprint() == state["fingerprint"]
    two.load_state_dict(state)
    assert next(iter(two.train_dataloader()))["input_ids"].shape == (8, 8)


def test_killed_while_preparing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    slow = {"count": 2000, "log": str(log)}
    data = numbers(tmp_path / "c", seconds=0.002, **slow)
    process = FORK.Process(target=data.prepare_data)
    process.start()
    partial = data.store_path.with_name(data.store_path.name + ".partial")
    # into the pass that writes: the first pass stops at the first held-out document
    while not log.exists() or len(log.read_text().split()) < 200:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert partial.exists()
    assert not TokenStore.exists(data.store_path)
    again = numbers(tmp_path / "c", seconds=0.002, **slow)
    again.seconds = 0.0
    again.prepare_data()
    assert not partial.exists()
    assert len(texts_of(again, "train")) + len(texts_of(again, "val")) == 2000


def test_two_processes_prepare_at_once(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def prepare() -> None:
        data = numbers(tmp_path / "c", count=100, log=str(log), seconds=0.002)
        data.prepare_data()
        assert len(texts_of(data, "train")) + len(texts_of(data, "val")) == 100

    processes = [FORK.Process(target=prepare) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    # read once whole, and once until the first held-out document
    assert 100 < len(log.read_text().split()) < 200


def test_memory_holds_a_batch_and_not_the_corpus(tmp_path: Path) -> None:
    class Large(TextData):
        def documents(self) -> Iterator[Document | Skipped]:
            for i in range(600):
                yield Document(f"{i:06d}" * 20_000, str(i))

    data = Large(tokenizer="byte", cache_dir=str(tmp_path))
    tracemalloc.start()
    data.prepare_data()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.store.counts("train").num_bytes + data.store.counts("val").num_bytes == 72_000_000
    assert peak < 30_000_000
