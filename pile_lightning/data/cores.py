"""Which cores and threads encoding may use: all of them, but in a worker process one."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["default_num_proc", "num_encoding_threads", "without_tokenizer_threads"]

# the switch of `tokenizers`, which ours obeys as well
_SWITCH = "TOKENIZERS_PARALLELISM"
_OFF = ("0", "false", "f", "no", "n", "off")


def default_num_proc() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_encoding_threads() -> int:
    """Return how many threads may encode: one in a worker process, or where that was asked for."""
    # workers of a loader are daemons, and so are those that prepare
    if os.environ.get(_SWITCH, "").lower() in _OFF or multiprocessing.current_process().daemon:
        return 1
    return default_num_proc()


@contextmanager
def without_tokenizer_threads() -> Iterator[None]:
    """Fork processes without the warning of `tokenizers`, whose threads do not survive a fork."""
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before
