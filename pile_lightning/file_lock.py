"""A lock on a file that one process holds at a time, and that disappears with the process.

It is a POSIX record lock (``fcntl.lockf``), not ``flock``, which ``filelock`` takes. Shared file
systems pass record locks between machines where they pass any (NFS, Lustre, GPFS), and a child does
not inherit one. A ``flock`` is held as long as any forked child has the file open: after a
``kill -9`` loader workers would keep it. (Where the children write too, as those that build a store
do, that is what is wanted: ``data/build_lock.py``.) In return a record lock is lost as soon as its
process closes the file anywhere, so nothing but this module may open it, and threads of one process
are kept apart by a set.
"""

import contextlib
import os
import sys
from pathlib import Path

__all__ = ["FileLock", "lock_file"]

_HELD: set[str] = set()


class FileLock:
    """A lock that this process holds; see ``lock_file``."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    def note(self, text: str) -> None:
        """Write who holds it, for those who do not get it.

        Raises:
            OSError: If it cannot be written; the lock is held all the same.
        """
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode("utf-8"), 0)

    def release(self) -> None:
        """Remove the file and let others have the lock."""
        if self._descriptor is None:
            return
        # while it is held: who has opened the file before finds out that it is gone
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        os.close(self._descriptor)
        self._descriptor = None
        _HELD.discard(self.path)


def lock_file(path: str | Path) -> FileLock | None:
    """Return the lock on a file, which is made, or None where it is held already.

    Raises:
        OSError: If the file cannot be made, or the file system has no locks.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lock = lock_file(f"{folder}/lock")
        ...     held = lock_file(f"{folder}/lock") is None
        ...     lock.release()
        >>> held
        True
    """
    place = os.path.realpath(path)
    if place in _HELD:
        return None
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _take(descriptor):
                os.close(descriptor)
                return None
            if _is_file(descriptor, place):
                _HELD.add(place)
                return FileLock(place, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # of a file that its owner has removed meanwhile


def _is_file(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> bool:
        try:
            # far behind what ``note`` writes, which others are to read
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _take(descriptor: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as a system likes
            return False
        return True
