"""Checkpoint files that are whole or absent, whatever kills the process while it writes."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

__all__ = ["AtomicCheckpointIO"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target, sync, rename.

    Lightning's own writer goes through the temporary folder, which is atomic only on the same file
    system: a kill during the save can leave an empty file where the last good checkpoint was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     AtomicCheckpointIO().save_checkpoint({"step": 3}, f"{folder}/last.ckpt")
        ...     AtomicCheckpointIO().load_checkpoint(f"{folder}/last.ckpt")
        {'step': 3}
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save ``checkpoint`` so that ``path`` holds the old file or the new one, never a part.

        Remote paths (``s3://...``) go to Lightning's writer: object stores commit whole objects.

        Raises:
            TypeError: For storage options, which mean nothing to a file.
        """
        if storage_options is not None:
            raise TypeError(
                "AtomicCheckpointIO takes no storage_options; pass them to a CheckpointIO that "
                "knows them, in trainer.plugins"
            )
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # one fixed name: a file left by a kill is overwritten by the next save
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
