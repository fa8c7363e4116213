"""One process builds a store and the others wait for it, on this machine and on others."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pile_lightning.data.cache_errors import writing_to

__all__ = ["building"]

_POLL = 0.2
_PATIENCE = 1.0


@contextmanager
def building(path: Path, *, is_ready: Callable[[], bool], quiet: bool) -> Iterator[bool]:
    """Yield whether this process is to build the store at ``path``; False where it is ready.

    The lock is the operating system's: that of a process that died is free, as soon as the children
    that write for it have ended too, which inherit it. Who waits also looks
    whether the store is there, so that it goes on even where another machine's lock is not seen
    to be released.

    Raises:
        CacheError: Where the folder of stores cannot be written.
    """
    with writing_to(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    began, told = time.monotonic(), quiet
    while True:
        try:
            with writing_to(path.parent):
                lock.acquire(timeout=0)
            break
        except Timeout:
            if is_ready():
                yield False
                return
        if not told and time.monotonic() - began > _PATIENCE:
            print(f"another process prepares {path}; waiting for it", flush=True)
            told = True
        time.sleep(_POLL)
    try:
        yield not is_ready()
    finally:
        lock.release()
