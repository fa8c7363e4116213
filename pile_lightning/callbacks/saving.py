"""Whether a checkpoint was saved: a writer that outlives a full disk tells it afterwards."""

import os
from typing import Protocol, cast, runtime_checkable

from lightning import Trainer

__all__ = ["checkpoint_folder", "why_not_saved"]


@runtime_checkable
class TellsFailures(Protocol):
    """A checkpoint writer whose saves may fail without ending the run."""

    def failed(self, path: str) -> str | None:
        """Return why the latest save to ``path`` failed, or None."""

    def wait(self) -> None:
        """Wait for a save that is under way."""


def why_not_saved(trainer: Trainer, path: str, *, wait: bool = False) -> str | None:
    """Return why the latest save to ``path`` failed, or None; the same on all ranks.

    Args:
        trainer: It saved.
        path: Where to.
        wait: Wait for a save that is under way; otherwise the one before it counts.
    """
    writer = trainer.strategy.checkpoint_io
    reason: str | None = None
    if isinstance(writer, TellsFailures):
        if wait:
            writer.wait()
        reason = writer.failed(path)
    # one rank alone may be the one that writes
    return cast(str | None, trainer.strategy.broadcast(reason))


def checkpoint_folder(trainer: Trainer) -> str:
    """Return the folder of a run's checkpoints (on all ranks: Lightning broadcasts it)."""
    return os.path.join(trainer.log_dir or trainer.default_root_dir, "checkpoints")
