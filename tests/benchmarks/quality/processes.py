"""A process that is waited for, whose children end with it."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["RunFailedError", "end_with_children", "run_process"]

_running: set[int] = set()


class RunFailedError(RuntimeError):
    """A run that did not end well; the message has the end of what it printed."""


def run_process(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    timeout: float,
) -> float:
    """Run ``command`` in ``folder``, its output in ``log.txt`` there.

    Returns:
        When it was started, in seconds since the epoch.

    Raises:
        RunFailedError: If it fails or takes longer than ``timeout`` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    with log.open("w") as output:
        started = time.time()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _running.add(process.pid)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                _kill(process.pid)
                process.wait()
            _running.discard(process.pid)
    if status != 0:
        why = f"was not done after {timeout:.0f} s" if status is None else f"left with {status}"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise RunFailedError(f"{' '.join(command)}\n{why}:\n{tail}")
    return started


@contextlib.contextmanager
def end_with_children() -> Iterator[None]:
    """Let an interrupt or SIGTERM end what is running, which has sessions of its own."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on from here") from None
    finally:
        for pid in tuple(_running):
            _kill(pid)
        signal.signal(signal.SIGTERM, before)


def _kill(pid: int) -> None:
    """End a process and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
