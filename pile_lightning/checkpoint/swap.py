"""Put a new file or folder where an old one was, so that at each moment one of them is there.

A file replaces a file in one step. A folder cannot replace a folder that holds something: the old
one steps aside under the name ``.<name>.old``, the new one takes its place, and the old one goes.
A kill between leaves the old one aside, where ``standing`` finds it.
"""

import contextlib
import shutil
from pathlib import Path

from pile_lightning.whole_file import partial, sync_folder

__all__ = [
    "aside",
    "clear_leftovers",
    "put_in_place",
    "remove",
    "standing",
]


def aside(target: Path) -> Path:
    """Return where the old ``target`` waits until the new one is in place."""
    return target.with_name(f".{target.name}.old")


def standing(target: Path) -> Path:
    """Return where ``target`` is to be read: aside, if a kill came while it was replaced."""
    return aside(target) if not target.exists() and aside(target).exists() else target


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clear_leftovers(target: Path, *, before: float = 0.0) -> None:
    """Remove what a kill has left of ``target``, and what older ones have left beside it.

    Args:
        target: What is about to be written.
        before: When what is beside it must have been written: a run clears what was there before
            it began, for what is younger another process may be writing.
    """
    remove(partial(target))
    beside = target.parent
    with contextlib.suppress(FileNotFoundError):  # another process may clear as well
        for half in beside.glob(".*.ckpt.partial"):
            if half.stat().st_mtime < before:
                remove(half)
        for old in beside.glob(".*.ckpt.old"):
            of = beside / old.name.removeprefix(".").removesuffix(".old")
            if of.exists() and of.stat().st_mtime < before:
                remove(old)


def put_in_place(target: Path) -> None:
    """Rename what is written, whole and on the disk, from ``partial(target)`` to ``target``."""
    new, old = partial(target), aside(target)
    if new.is_dir() or target.is_dir():
        if target.exists():
            remove(old)  # of an earlier kill: what is in place is whole
            target.rename(old)
        new.rename(target)
    else:
        new.replace(target)
    sync_folder(target.parent)
    remove(old)
