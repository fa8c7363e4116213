"""The folder of a run: who owns it, and that it is touched when all that can be checked is checked.

One process trains in a folder at a time: rank 0 of a job holds the lock on ``.owner`` in it. An
earlier run is moved away, and ``config.yaml`` written, when training starts: by then text is
prepared, the batch divides, the model is built and the checkpoint accepted.
"""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_warn

from pile_lightning.callbacks import Rewound
from pile_lightning.callbacks.side_files import SideFiles
from pile_lightning.cli.runs import checkpoints_of
from pile_lightning.cli.screen import say
from pile_lightning.file_lock import FileLock, lock_file
from pile_lightning.whole_file import write_file

__all__ = ["ClearFolder", "SaveFitConfig", "owned", "saved_times"]

OWNER = ".owner"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOSPC, errno.EDQUOT)
_PATIENCE = 120.0
"""Seconds to wait for another machine: a file server frees the locks of a dead one after 90."""

_kept: dict[Path, FileLock] = {}
"""Locks of runs that this process is about to go on with."""


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own the folder of a run; a run that was rewound keeps it.

    Raises:
        OSError: Where the folder cannot be made.
        ValueError: Where another process trains in it.
    """
    key, was_there = Path(os.path.realpath(folder)), folder.exists()
    lock = _kept.pop(key, None) or _acquire(folder)
    try:
        yield
    except Rewound:
        if lock is not None:
            _kept[key] = lock  # this process goes on in it, or ends
        raise
    except BaseException:
        _release(lock)
        if not was_there:
            with contextlib.suppress(OSError):
                folder.rmdir()  # nothing came of it
        raise
    _release(lock)


def _release(lock: FileLock | None) -> None:
    if lock is not None:
        lock.release()


def _acquire(folder: Path) -> FileLock | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock_or_wait(folder / OWNER)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno not in _NO_LOCKS:
            raise OSError(
                error.errno,
                f"{folder} cannot be written ({reason}); choose another trainer.default_root_dir",
            ) from error
        rank_zero_warn(
            f"{folder} cannot be locked ({reason}): see to it that no other run trains in it."
        )
        return None
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    with contextlib.suppress(OSError):  # a full disk: it is held all the same
        lock.note(f"{socket.gethostname()}, process {os.getpid()}, since {since}\n")
    return lock


def _lock_or_wait(path: Path) -> FileLock:
    deadline = None
    while (lock := lock_file(path)) is None:
        owner = _owner(path)
        if deadline is None:
            elsewhere = owner and not owner.startswith(f"{socket.gethostname()}, ")
            deadline = time.monotonic() + (_PATIENCE if elsewhere else 0)
            if elsewhere:
                say(f"{path.parent} is owned by {owner}; waiting, in case that machine is dead.")
        if time.monotonic() >= deadline:
            raise ValueError(
                f"another run trains in {path.parent}: {owner or 'who, it does not say'}; wait for "
                f"it or stop it, or choose another folder by --trainer.default_root_dir"
            )
        time.sleep(0.5)
    return lock


def _owner(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def saved_times(folder: Path) -> dict[Path, int]:
    """Return the time at which each checkpoint of a run was written."""
    times = {}
    for path in checkpoints_of(folder):
        with contextlib.suppress(OSError):
            times[path] = path.stat().st_mtime_ns
    return times


class ClearFolder(Callback):
    """Move an earlier run out of the folder when a new one starts to train.

    Args:
        folder: Of the run.
        fresh: Whether it is a new one; one that is gone on with stays.
    """

    def __init__(self, folder: Path, *, fresh: bool) -> None:
        self.folder, self.fresh = folder, fresh
        self._before: set[Path] = set(_contents(folder)) if fresh else set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move it, before any rank writes."""
        if self.fresh and trainer.is_global_zero and not trainer.fast_dev_run:
            make_room(self.folder, self._before)
        self.fresh = False
        trainer.strategy.barrier("folder")


def _contents(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in sorted(folder.rglob("*"))]


def make_room(folder: Path, before: set[Path] | None = None) -> None:
    """Move an earlier run out of ``folder``, to the next free name: nothing of it is lost.

    Args:
        folder: Of the run.
        before: What the earlier run has left, by paths in the folder; by default all there is.
            What came since, as of another logger, stays, and so does the lock.

    Raises:
        OSError: Where the folder cannot be moved.
        ValueError: Where this process runs in it.
    """
    if not ((folder / "checkpoints").is_dir() or (folder / "metrics.csv").is_file()):
        return
    place = Path(os.path.realpath(folder))  # where a link points to, there is room
    if Path.cwd().is_relative_to(place):
        raise ValueError(
            f"{folder} holds an earlier run, and this process runs in it; choose another "
            f"trainer.default_root_dir"
        )
    number = 1
    while (earlier := place.with_name(f"{place.name}.{number}")).exists():
        number += 1
    new = [p for p in _contents(place) if before is not None and p not in before | {Path(OWNER)}]
    fresh = place.with_name(f".{place.name}.partial")
    try:
        with contextlib.suppress(FileNotFoundError):
            (fresh / OWNER).unlink()  # of a kill
        fresh.mkdir(exist_ok=True)
        if (place / OWNER).exists():
            _link(place / OWNER, fresh / OWNER)
        place.rename(earlier)
        # not where another process has made one and put a lock into it
        fresh.rename(place)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{folder} holds an earlier run and cannot be moved to {earlier} "
            f"({error.strerror or error}); choose another trainer.default_root_dir",
        ) from error
    (earlier / OWNER).unlink(missing_ok=True)
    for path in new:
        if (earlier / path).exists():  # not moved with its folder
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (earlier / path).rename(place / path)
    say(f"{folder} held an earlier run, which is now {folder.with_name(earlier.name)}.")


def _link(source: Path, target: Path) -> None:
    """Give the lock's file a second name: a new file would be another lock."""
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        source.rename(target)


class SaveFitConfig(SaveConfigCallback):
    """Keep the config of a fit as ``config.yaml``; other commands leave the run's folder alone."""

    _files: SideFiles | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the folder as it is: not all is checked yet."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save it, whole and in UTF-8 whatever the locale."""
        path = Path(trainer.log_dir or trainer.default_root_dir, self.config_filename)
        if trainer.is_global_zero and self._files is None:
            text = self.parser.dump(self.config, skip_unset=False)
            self._files = SideFiles()
            self._files.write(path, lambda: write_file(path, text))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save it where that failed before."""
        if self._files is not None:
            self._files.retry()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save it where that failed before."""
        self.on_validation_end(trainer, pl_module)
