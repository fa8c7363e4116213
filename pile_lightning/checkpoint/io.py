"""Checkpoints that are whole or absent, whatever kills the process while it writes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from pile_lightning.checkpoint.background import Background
from pile_lightning.checkpoint.paths import load_whole, read_checkpoint, read_summary
from pile_lightning.checkpoint.ranks import Group, rank_and_size
from pile_lightning.checkpoint.sealed_file import write_file
from pile_lightning.checkpoint.shards import load_shards, read_whole
from pile_lightning.checkpoint.staging import stage_shards
from pile_lightning.checkpoint.summary import summary_of
from pile_lightning.checkpoint.swap import aside, clear_leftovers, put_in_place, remove
from pile_lightning.checkpoint.tree import copy_to_memory
from pile_lightning.whole_file import partial

__all__ = ["AtomicCheckpointIO", "write_checkpoint"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target, sync, rename; check what is read.

    Lightning's own writer goes through the temporary folder, which is atomic only on the same file
    system: a kill during the save can leave an empty file where the last good checkpoint was.

    Where a save fails because the disk is full or gone, what was there stays, a warning says so,
    and training goes on: ``failed`` tells of it.

    Args:
        background: Copy the state to memory and write it while training goes on. One save is
            under way at most; a second one waits for it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     AtomicCheckpointIO().save_checkpoint({"step": 3}, f"{folder}/last.ckpt")
        ...     AtomicCheckpointIO().load_checkpoint(f"{folder}/last.ckpt")
        {'step': 3}
    """

    def __init__(self, *, background: bool = False) -> None:
        self.background = background
        self._begun = time.time()
        self._thread = Background()
        self._failed: dict[str, str] = {}
        self._saving: str | None = None
        self._group: Group = None

    # -- saving -----------------------------------------------------------------------------------

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Save a file, so that ``path`` holds the old checkpoint or the new one, never a part.

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
        if self.background:
            self.wait()  # two copies could fill the memory
            checkpoint = copy_to_memory(checkpoint)
        self._save(lambda: write_checkpoint(checkpoint, path, before=self._begun), path)

    def save_shards(self, checkpoint: dict[str, Any], path: str | Path) -> None:
        """Save a folder of every rank's parts: a collective of all ranks.

        Raises:
            ValueError: Where the ranks hold different states, or no whole one.
        """
        self.wait()  # two copies could fill the memory
        staged = stage_shards(checkpoint, path, copy=self.background, before=self._begun)
        if self.background and self._group is None and rank_and_size()[1] > 1:
            # of the thread alone: the main one's collectives must not come between
            self._group = dist.new_group(backend="gloo")
        self._save(lambda: staged.write(self._group), path)

    def _save(self, write: Callable[[], object], path: str | Path) -> None:
        self.wait()
        self._failed.pop(str(path), None)
        self._saving = str(path)

        def save() -> None:
            try:
                write()
            except Exception as error:
                if not (self.background or isinstance(error, OSError)):
                    raise
                self._failed[str(path)] = str(error)
                rank_zero_warn(
                    f"{path} was not saved: {error}. What was there before is untouched, training "
                    f"goes on, and the next save tries again."
                )

        if self.background:
            self._thread.run(save)
        else:
            save()

    def failed(self, path: str | Path) -> str | None:
        """Return why the latest save to ``path`` that has ended failed, or None if it did not."""
        return self._failed.get(str(path))

    def wait(self) -> None:
        """Wait for a save in the background."""
        self._thread.wait()

    def teardown(self) -> None:
        """Wait for a save in the background, and end its thread."""
        self._thread.close()
        self._group = None

    # -- reading ----------------------------------------------------------------------------------

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Load a file or, with whole tensors, a folder, as data, whatever ``weights_only`` says.

        Raises:
            FileNotFoundError: Where there is none.
            ValueError: Where it is incomplete, damaged or of another program.
        """
        if "://" in str(path):
            return read_checkpoint(path, map_location=map_location)
        self.wait()
        return load_whole(path, map_location=map_location)

    def load_shards(self, state: dict[str, Any], path: str | Path) -> dict[str, Any]:
        """Fill ``state`` in place from a folder, and return what else is in it: a collective.

        Args:
            state: Keys of the checkpoint that are to be loaded part by part.
            path: The folder.

        Raises:
            FileNotFoundError: Where there is none.
            ValueError: On all ranks, where it is damaged, incomplete, or of another model.
        """
        self.wait()
        load_shards(state, path)
        # optimizers that were not asked for: scoring needs none
        return read_whole(path, without={*state, "optimizer_states"}, verified=True)

    def summary(self, path: str | Path) -> dict[str, Any]:
        """Return what a checkpoint says of itself, without reading its tensors.

        Raises:
            FileNotFoundError: Where there is none.
            ValueError: Where it is incomplete, damaged or of another program.
        """
        return read_summary(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file or a folder, if there is one."""
        if "://" in str(path):
            super().remove_checkpoint(path)
            return
        if self._saving == str(path):
            self.wait()
        for each in (aside(Path(path)), partial(Path(path)), Path(path)):
            remove(each)


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path, *, before: float = 0.0) -> None:
    """Write a checkpoint file beside ``path``, bring it to the disk, and rename it.

    Args:
        checkpoint: What to save.
        path: Where to.
        before: Leftovers of kills beside ``path`` are removed if they are older than this.

    Raises:
        OSError: Where it cannot be written; what was there is untouched.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(target, before=before)
        write_file(checkpoint, partial(target), summary_of(checkpoint, target.parent))
        put_in_place(target)
    except BaseException:
        # also room for what else is to be written
        remove(partial(target))
        raise
