"""Jobs in processes of their own: results, reports, one clear error, and nobody left behind."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pile_lightning.data.workers import Report, run_jobs

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
FORK = multiprocessing.get_context("fork")


def nothing(number: int, report: Report | None) -> None:
    pass


def run(jobs: list[Any], num_proc: int = 2) -> dict[int, Any]:
    return dict(run_jobs(jobs, num_proc=num_proc, on_report=nothing))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


class NoPickleError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize("num_proc", [1, 2, 9])
def test_every_job_is_done_once(num_proc: int) -> None:
    told: list[tuple[int, Report | None]] = []

    def job(number: int) -> Callable[[Any], tuple[int, int]]:
        def work(report: Callable[[Report], None]) -> tuple[int, int]:
            report(Report(number, 0, 0))
            return number * number, os.getpid()

        return work

    results = dict(
        run_jobs(
            [job(number) for number in range(7)],
            num_proc=num_proc,
            on_report=lambda number, report: told.append((number, report)),
        )
    )
    assert {number: square for number, (square, _) in results.items()} == {
        number: number**2 for number in range(7)
    }
    assert ({pid for _, pid in results.values()} == {os.getpid()}) == (num_proc == 1)
    heard = [(number, report) for number, report in told if report is not None]
    assert sorted(heard) == [(number, Report(number, 0, 0)) for number in range(7)]


def test_silence_is_told_so_that_the_time_goes_on() -> None:
    told: list[Report | None] = []
    jobs = [lambda report: time.sleep(1.2)] * 2
    list(run_jobs(jobs, num_proc=2, on_report=lambda number, report: told.append(report)))
    assert told == [None, None]


@pytest.mark.parametrize("num_proc", [1, 2])
def test_an_error_is_the_one_it_was(num_proc: int) -> None:
    def fail(report: object) -> None:
        raise FileNotFoundError(2, "no such file", "a.txt")

    def fail_too(report: object) -> None:
        raise NoPickleError(1, 2)

    with pytest.raises(FileNotFoundError, match=r"no such file: 'a.txt'"):
        run([fail, lambda report: time.sleep(60)] if num_proc == 2 else [fail], num_proc)
    with pytest.raises((NoPickleError, RuntimeError), match="1 and 2"):
        run([fail_too, fail_too], num_proc)
    assert not multiprocessing.active_children()


def test_a_process_that_is_killed_is_told() -> None:
    def die(report: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match=r"exit code -9\), most likely because memory ran out"):
        run([die, die])
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nobody_outlives_the_caller(tmp_path: Path, how: signal.Signals) -> None:
    def work(report: object) -> None:
        (tmp_path / str(os.getpid())).touch()
        time.sleep(60)

    def call() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        run([work] * 3, num_proc=3)

    caller = FORK.Process(target=call)
    caller.start()
    pids = wait_for(lambda: (found := list(tmp_path.iterdir())) and len(found) == 3 and found)
    assert caller.pid is not None
    if how == signal.SIGINT:  # Ctrl-C reaches all of them
        os.killpg(caller.pid, how)
    else:
        os.kill(caller.pid, how)
    caller.join(10)
    assert caller.exitcode not in (None, 0)
    wait_for(lambda: not any(is_running(int(path.name)) for path in pids))


def test_jobs_that_cannot_be_pickled_run_here_where_there_is_no_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    lock = threading.Lock()

    def work(report: object) -> int:
        with lock:
            return os.getpid()

    assert run([work, work]) == {0: os.getpid(), 1: os.getpid()}


def test_a_daemon_works_alone() -> None:
    ours, theirs = FORK.Pipe()

    def work(report: object) -> int:
        return os.getpid()

    def call() -> None:
        theirs.send((os.getpid(), run([work, work])))

    process = FORK.Process(target=call, daemon=True)
    process.start()
    assert ours.poll(10)
    pid, results = ours.recv()
    assert results == {0: pid, 1: pid}
    process.join()
