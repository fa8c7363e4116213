"""Runs jobs in processes of their own: reports while they work, results, errors, and no orphans."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol, cast

from pile_lightning.data.cores import without_tokenizer_threads

__all__ = ["Job", "Report", "run_jobs"]

_PATIENCE = 0.5
"""Seconds after which a silent job's progress is shown again."""


class Report(NamedTuple):
    """How far a job is."""

    num_bytes: int
    """Bytes of text that it has done."""
    raw_bytes: int
    """Bytes that its finished shards took to read."""
    stored: int
    """Bytes that it has written."""


class Job(Protocol):
    """Work for one process."""

    def __call__(self, report: Callable[[Report], None], /) -> Any:
        """Do it, and call ``report`` now and then."""


class _RemoteTraceback(Exception):  # noqa: N818 - shown above an error, never raised
    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def run_jobs(
    jobs: Sequence[Job], *, num_proc: int, on_report: Callable[[int, Report | None], None]
) -> Generator[tuple[int, Any], None, None]:
    """Yield the number and result of each job, as they end.

    Jobs run here where one process is enough, and where they cannot be sent to others. An error of
    a job is raised here, and ends the others; so does whatever ends the caller.

    Args:
        jobs: What to do, in the order in which to begin.
        num_proc: Processes.
        on_report: Is called with a job's number and its report, and with None where none came for
            half a second.
    """
    num_proc = min(num_proc, len(jobs))
    context = _context(jobs)
    if num_proc <= 1 or context is None:
        for number, job in enumerate(jobs):
            yield number, job(lambda report, number=number: on_report(number, report))  # type: ignore[misc]
        return
    processes: dict[Connection, BaseProcess] = {}
    try:
        with without_tokenizer_threads(), warnings.catch_warnings():
            # the children run none of this process's threads
            warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
            for _ in range(num_proc):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(jobs, theirs), daemon=True)  # type: ignore[attr-defined]
                process.start()
                theirs.close()
                processes[ours] = process
        yield from _hand_out(len(jobs), processes, on_report)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


def _hand_out(
    num_jobs: int,
    processes: dict[Connection, BaseProcess],
    on_report: Callable[[int, Report | None], None],
) -> Generator[tuple[int, Any], None, None]:
    waiting = iter(range(num_jobs))
    working: dict[Connection, int] = {}
    for connection, number in zip(processes, waiting, strict=False):
        connection.send(number)
        working[connection] = number
    while working:
        ready = cast(list[Connection], wait(list(working), _PATIENCE))
        if not ready:
            on_report(next(iter(working.values())), None)
        for connection in ready:
            kind, content = _receive(connection, processes[connection])
            if kind == "report":
                on_report(working[connection], content)
                continue
            if kind == "error":
                raise content
            done = working.pop(connection)
            for number in islice(waiting, 1):
                connection.send(number)
                working[connection] = number
            yield done, content


def _receive(connection: Connection, process: BaseProcess) -> tuple[str, Any]:
    try:
        kind, content = connection.recv()
    except EOFError:
        process.join()
        raise RuntimeError(
            f"a process that prepares data was ended from outside (exit code {process.exitcode}), "
            f"most likely because memory ran out; set num_proc to fewer processes"
        ) from None
    if kind != "error":
        return kind, content
    error, text = content
    error.__cause__ = _RemoteTraceback(text)
    return kind, error


def _context(jobs: Sequence[Job]) -> BaseContext | None:
    if multiprocessing.current_process().daemon:  # may have no children
        return None
    if sys.platform == "linux":
        return multiprocessing.get_context("fork")
    try:
        pickle.dumps(jobs)
    except Exception:  # whatever a user's own class raises
        return None
    return multiprocessing.get_context("spawn")


def _work(jobs: Sequence[Job], connection: Connection) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C reaches every process of a terminal: the parent takes care of it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(progress: Report) -> None:
        connection.send(("report", progress))

    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = jobs[connection.recv()]
            try:
                message: tuple[str, Any] = "done", job(report)
            except BaseException as error:  # the parent decides what it means
                message = "error", (_sendable(error), traceback.format_exc())
            connection.send(message)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # some errors cannot be made again from their arguments
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
