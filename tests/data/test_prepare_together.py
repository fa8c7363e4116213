"""Processes that are killed, meet or wait while they prepare one store."""

import os
import signal
import time
from pathlib import Path

import pytest

from pile_lightning.data.store import TokenStore
from tests.data.numbers import FORK, Numbers, files, numbers, prepare, texts

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def test_killed_in_the_middle_and_gone_on_with(tmp_path: Path) -> None:
    log = tmp_path / "log"
    slow = Numbers(count=12, log=str(log), seconds=0.02)
    process = FORK.Process(target=prepare, args=(tmp_path, slow))
    process.start()
    while len(list(tmp_path.glob("parts/*.json"))) < 3:
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = len(list(tmp_path.glob("parts/*.json")))
    assert 3 <= done < 12
    assert TokenStore.find(tmp_path / "store") is None
    assert (tmp_path / "store.partial").exists()
    log.unlink()
    store = prepare(tmp_path, Numbers(count=12, log=str(log)))
    assert sorted(texts(store)) == numbers(120)
    assert not (tmp_path / "store.partial").exists()
    # but for the first shards, which are looked into for a document to hold out
    read = {int(line) // 10 for line in log.read_text().split()} - {0, 1}
    assert len(read) <= 12 - done


def test_two_processes_prepare_one_store(tmp_path: Path) -> None:
    log = tmp_path / "log"
    results = FORK.Queue()

    def one() -> None:
        store = prepare(tmp_path / "c", Numbers(log=str(log), seconds=0.01))
        results.put((sorted(texts(store)), store.fingerprint))

    processes = [FORK.Process(target=one) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = results.get(timeout=30), results.get(timeout=30)
    for process in processes:
        process.join()
    assert first == second
    assert first[0] == numbers(60)
    # each shard read once, and the first ones until one is held out
    assert 60 < len(log.read_text().split()) < 90


def test_two_stores_with_parts_in_common_at_once(tmp_path: Path) -> None:
    def one(name: str, count: int) -> None:
        prepare(tmp_path, Numbers(count=count, seconds=0.005), name=name)

    processes = [FORK.Process(target=one, args=("a", 6)), FORK.Process(target=one, args=("b", 8))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    for name, count in (("a", 60), ("b", 80)):
        store = TokenStore.find(tmp_path / name)
        assert store is not None
        assert sorted(texts(store)) == numbers(count)


def test_who_waits_sees_what_another_machine_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lock stays taken, as that of another node may seem to; the store appears."""
    from filelock import FileLock

    prepare(tmp_path / "c", Numbers())
    os.rename(tmp_path / "c/store", tmp_path / "c/elsewhere")

    def appear() -> None:
        time.sleep(1.5)
        os.rename(tmp_path / "c/elsewhere", tmp_path / "c/store")

    process = FORK.Process(target=appear)
    process.start()
    with FileLock(tmp_path / "c/store.lock"):
        store = prepare(tmp_path / "c", Numbers(fail="0"), quiet=False)
    process.join()
    assert sorted(texts(store)) == numbers(60)
    assert f"another process prepares {tmp_path}/c/store; waiting" in capsys.readouterr().out


def test_a_lock_file_of_a_dead_process_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "store.lock").write_text("")
    assert len(texts(prepare(tmp_path, Numbers()))) == 60


@pytest.mark.slow
def test_processes_that_are_spawned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = files(tmp_path / "text", *(f"{i}.txt" for i in range(4)), size=2_500_000)
    monkeypatch.setattr("sys.platform", "darwin")
    spawned = prepare(tmp_path / "a", source, tokenizer="bpe:300")
    monkeypatch.undo()
    assert len(spawned.manifest["parts"]) > 1
    assert spawned.fingerprint == prepare(tmp_path / "b", source, tokenizer="bpe:300").fingerprint
