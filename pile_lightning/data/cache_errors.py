"""What is said where the cache cannot be written: which folder, what is kept, and what to do."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CacheError", "disk_full", "writing_to"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
_REMEDY = "set data.cache_dir, or the environment variable PILE_CACHE, to a folder"


class CacheError(OSError):
    """The cache cannot be written; an error of a source is none of these."""


@contextmanager
def writing_to(cache: Path) -> Iterator[None]:
    """Tell errors of writing to the cache from those of reading the text.

    Raises:
        CacheError: Where the disk is full or the folder may not be written.
    """
    try:
        yield
    except CacheError:
        raise
    except OSError as error:
        if error.errno in _FORBIDDEN:
            raise CacheError(
                error.errno,
                f"prepared data cannot be written to {cache} ({os.strerror(error.errno)}); "
                f"{_REMEDY} that you may write to",
            ) from error
        if error.errno in _FULL:
            raise CacheError(error.errno, f"the disk of {cache} is full") from error
        raise


@contextmanager
def disk_full(cache: Path, progress: Callable[[], tuple[int, int, int | None]]) -> Iterator[None]:
    """Say, where the disk is full, what is kept, what is still needed and what to do.

    Args:
        cache: Where prepared data lie.
        progress: Returns how many parts are finished, their bytes, and the bytes still to be
            written, if known.
    """
    try:
        yield
    except CacheError as error:
        if error.errno not in _FULL:
            raise
        parts, kept, needed = progress()
        more = "" if needed is None else f", about {_size(needed)} more are needed"
        free = shutil.disk_usage(cache).free
        raise CacheError(
            error.errno,
            f"the disk of {cache} is full: {parts} finished parts ({_size(kept)}) are kept and "
            f"will be used{more}, and {_size(free)} are free; make room, or {_REMEDY} on another "
            f"disk",
        ) from error


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
