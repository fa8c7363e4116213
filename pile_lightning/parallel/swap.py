"""Put a new file or folder where an old one was, so that at each moment one of them is there.

A file replaces a file in one step. A folder cannot replace a folder that holds something: the old
one steps aside under the name ``.<name>.old``, the new one takes its place, and the old one goes.
A kill between leaves the old one aside, where ``standing`` finds it.
"""

import os
import shutil
from pathlib import Path

__all__ = [
    "aside",
    "clear_leftovers",
    "partial",
    "put_in_place",
    "remove",
    "standing",
    "sync_folder",
]


def partial(target: Path) -> Path:
    """Return where ``target`` is written: one fixed name, so that a kill leaves one at most."""
    return target.with_name(f".{target.name}.partial")


def aside(target: Path) -> Path:
    """Return where the old ``target`` waits until the new one is in place."""
    return target.with_name(f".{target.name}.old")


def standing(target: Path) -> Path:
    """Return where ``target`` is to be read: aside, if a kill came while it was replaced."""
    return aside(target) if not target.exists() and aside(target).exists() else target


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clear_leftovers(target: Path) -> None:
    """Remove what kills have left beside ``target``: its own part, and those of checkpoints."""
    remove(partial(target))
    for half in target.parent.glob(".*.ckpt.partial"):
        remove(half)
    for old in target.parent.glob(".*.ckpt.old"):
        if old.with_name(old.name.removeprefix(".").removesuffix(".old")).exists():
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


def sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
