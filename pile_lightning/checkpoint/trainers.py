"""Checkpoints that a plain Trainer reads: as data, although nobody gave it our CheckpointIO."""

import os
from pathlib import Path
from typing import Any

from lightning import LightningModule
from lightning.pytorch.plugins.io import AsyncCheckpointIO, CheckpointIO, TorchCheckpointIO
from lightning.pytorch.strategies import FSDPStrategy, Strategy

from pile_lightning.checkpoint.paths import check_readable, read_checkpoint
from pile_lightning.checkpoint.remote import is_url

__all__ = ["DataCheckpointIO", "read_as_data", "trainer_of_data"]


class DataCheckpointIO(CheckpointIO):
    """Save as another CheckpointIO does, and read nothing but data.

    Lightning's own unpickles what comes from an ``http`` address.

    Args:
        writer: What saves.
    """

    def __init__(self, writer: CheckpointIO) -> None:
        self.writer = writer

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save as ``writer`` does."""
        self.writer.save_checkpoint(checkpoint, path, storage_options=storage_options)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load as data, whatever ``weights_only`` says."""
        return read_checkpoint(path, map_location="cpu" if map_location is None else map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove as ``writer`` does."""
        self.writer.remove_checkpoint(path)

    def teardown(self) -> None:
        """End what ``writer`` has begun."""
        self.writer.teardown()


def read_as_data(strategy: Strategy) -> None:
    """Let a strategy read checkpoints as data, where it would have Lightning's own reader.

    A CheckpointIO of a user's stays: it is a program of theirs.
    """
    files = strategy.checkpoint_io
    if type(files) in (TorchCheckpointIO, AsyncCheckpointIO):
        strategy.checkpoint_io = DataCheckpointIO(files)
    if isinstance(strategy, FSDPStrategy) and "load_checkpoint" not in vars(strategy):
        _check_first(strategy)


def _check_first(strategy: FSDPStrategy) -> None:
    """Check a file before FSDP's own reader, which unpickles it."""
    load: Any = strategy.load_checkpoint

    def load_data(path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        if not is_url(path) and os.path.isfile(path):
            check_readable(path)
        found: dict[str, Any] = load(path, weights_only=True)
        return found

    strategy.load_checkpoint = load_data


def _get(module: LightningModule) -> Any:
    return LightningModule.trainer.fget(module)


def _set(module: LightningModule, trainer: Any) -> None:
    LightningModule.trainer.fset(module, trainer)
    strategy = getattr(trainer, "strategy", None)
    if isinstance(strategy, Strategy):
        read_as_data(strategy)


trainer_of_data: Any = property(_get, _set, doc="The trainer, which reads checkpoints as data.")
"""``LightningModule.trainer`` of a module of ours: set before a checkpoint is read."""
