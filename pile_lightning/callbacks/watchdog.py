"""A run that hangs says where, and ends, so that what started it can start it again."""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from pile_lightning.callbacks.leaving import HUNG, check_exit_code

__all__ = ["GRACE", "Watchdog"]

GRACE = 5.0
"""Seconds between what a rank says and its end."""


class Watchdog(Callback):
    """Exit where no batch, validation batch or save has begun or ended for too long.

    Each rank watches itself: where one hangs, the others hang waiting for it, and all of them write
    the stacks of all their threads to standard error and to ``stacks-rank-<rank>.txt`` in the run's
    folder.

    Args:
        timeout: Seconds without progress. A save, and the first step with what it compiles, have to
            fit in. The default is below the ten minutes after which NCCL ends a rank that waits,
            which would keep the rank that is waited for from saying where it hangs.
        exit_code: Of a process that hung.

    Raises:
        ValueError: For a time that is none.
    """

    def __init__(self, timeout: float = 540, exit_code: int = HUNG) -> None:
        if not timeout > 0:
            raise ValueError(
                f"timeout={timeout}: a run hangs after so many seconds without progress; choose "
                f"more than 0, and more than a step and a save take"
            )
        self.timeout = timeout
        self.exit_code = check_exit_code(exit_code)
        self._last = 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to watch."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        self._beat()
        self._over = threading.Event()
        stacks = folder / f"stacks-rank-{trainer.global_rank}.txt"
        self._thread = threading.Thread(
            target=self._watch, args=(stacks, trainer), name="watchdog", daemon=True
        )
        self._thread.start()

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Take it as progress."""
        self._beat()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Take it as progress."""
        self._beat()

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Take it as progress."""
        self._beat()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it as progress."""
        self._beat()

    def on_save_checkpoint(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Take the beginning of a save as progress."""
        self._beat()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop: what follows is not training."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: Any) -> None:
        """Stop."""
        self._stop()

    def _beat(self) -> None:
        self._last = time.monotonic()

    def _stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self, path: Path, trainer: Trainer) -> None:
        interval = min(1.0, self.timeout / 10)
        # opened now: a full disk or a hanging mount must not be met when all else has gone wrong;
        # not emptied, because the run may have been started again after it hung
        with _open(path) as file:
            try:
                while not self._over.wait(interval):
                    # of a thread that keeps the interpreter to itself only this one can tell, which
                    # needs none: it fires where it was not put off in time
                    faulthandler.dump_traceback_later(2 * self.timeout, exit=True, file=file)
                    if time.monotonic() - self._last > self.timeout:
                        self._bark(file, trainer)
            finally:
                faulthandler.cancel_dump_traceback_later()
        if path.is_file() and not path.stat().st_size:
            path.unlink()

    def _bark(self, file: TextIO, trainer: Trainer) -> None:
        faulthandler.cancel_dump_traceback_later()
        for out in (file, sys.__stderr__ or sys.stderr):
            out.write(
                f"\nRank {trainer.global_rank} has made no progress for {self.timeout:g} seconds "
                f"(watchdog.timeout) after step {trainer.global_step}; process {os.getpid()} exits "
                f"with code {self.exit_code}. Where its threads are:\n"
            )
            out.flush()
            faulthandler.dump_traceback(file=out, all_threads=True)
            out.flush()
        with contextlib.suppress(OSError):  # no disk, or a full one
            os.fsync(file.fileno())
        # whoever started the ranks ends all when one has ended: let the others say where they are
        time.sleep(GRACE)
        os._exit(self.exit_code)


def _open(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8")
    except OSError as error:  # a full disk: standard error has to do
        rank_zero_warn(f"{path} cannot be written: {error.strerror}; stacks go to standard error.")
        return open(os.devnull, "a", encoding="utf-8")
