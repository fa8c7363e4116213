"""What ``predict`` leaves behind: the likeliest next tokens of each row, as JSON lines."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.callbacks.data_rank import DataRank
from pile_lightning.file_lock import FileLock, lock_file
from pile_lightning.whole_file import partial, sync_folder

__all__ = ["WritePredictions"]


class WritePredictions(BasePredictionWriter):
    """Write ``predictions.jsonl`` in the run's folder, a line a row, when all rows have come.

    Several ranks write a file each, ``predictions-<rank>.jsonl``; of tensor-parallel peers, which
    see the same rows, the first writes. Until the end the lines lie in a hidden file beside it, so
    that a file of this name is whole. Lines that find the disk full are kept and written later.

    Args:
        top: Likeliest tokens to write for each row.
    """

    def __init__(self, top: int = 5) -> None:
        super().__init__(write_interval="batch")
        if top < 1:
            raise ValueError(f"top={top}: write at least the likeliest token")
        self.top = top

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the file.

        Raises:
            ValueError: Where another process writes it.
        """
        place = DataRank.of(trainer)
        rank = f"-{place.rank}" if place.num_ranks > 1 else ""
        self.path = Path(trainer.default_root_dir, f"predictions{rank}.jsonl")
        self.writes = place.is_first_peer
        self._file = _GrowingFile(self.path) if self.writes else None

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Tensor,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the rows of one batch, without those that only fill it up: they have no labels.

        Args:
            trainer: The trainer.
            pl_module: The module.
            prediction: Probabilities of the next token (batch, vocab).
            batch_indices: Not used.
            batch: What was predicted on.
            batch_idx: Not used.
            dataloader_idx: Not used.
        """
        if self._file is None:
            return
        if isinstance(batch, Mapping) and "labels" in batch:
            prediction = prediction[(batch["labels"] != IGNORE_INDEX).any(dim=1)]
        codec = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        self._file.append(
            "".join(f"{json.dumps(line)}\n" for line in self._lines(prediction, codec))
        )

    def _lines(self, prediction: Tensor, codec: Any) -> Iterator[dict[str, Any]]:
        probabilities, ids = prediction.topk(min(self.top, prediction.shape[-1]), dim=-1)
        for row_ids, row in zip(ids.tolist(), probabilities.tolist(), strict=True):
            line: dict[str, Any] = {"ids": row_ids, "probabilities": row}
            if codec is not None:
                line["tokens"] = [codec.decode([i]) for i in row_ids]
            yield line

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the file in place.

        Raises:
            OSError: Where lines are left that cannot be written.
        """
        if self._file is not None:
            self._file.finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: Any) -> None:
        """Leave no half of a file."""
        if getattr(self, "_file", None) is not None:
            self._file.drop()  # type: ignore[union-attr]


class _GrowingFile:
    """A file that is written bit by bit, and is there when it is whole."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_file(path.with_name(f".{path.name}.lock"))
        if lock is None:
            raise ValueError(
                f"{path} is being written by another process; wait for it, or choose another "
                f"trainer.default_root_dir"
            )
        self.path = path
        self._lock: FileLock = lock
        self._size, self._waiting = 0, b""
        partial(path).unlink(missing_ok=True)  # what a kill left

    def append(self, text: str) -> None:
        """Write some lines, and those that could not be written before."""
        self._waiting += text.encode("utf-8")
        try:
            self._write()
        except OSError as error:
            rank_zero_warn(
                f"lines of {self.path} were not written: {error.strerror or error}. They are kept, "
                f"and the next batch tries again."
            )

    def _write(self) -> None:
        with partial(self.path).open("ab") as file:
            file.truncate(self._size)  # what a full disk left of a line
            file.write(self._waiting)
        self._size, self._waiting = self._size + len(self._waiting), b""

    def finish(self) -> None:
        """Write what waits, bring the file to the disk and put it in place."""
        try:
            self._write()
            with partial(self.path).open("rb") as file:
                os.fsync(file.fileno())
            partial(self.path).replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise OSError(
                f"{self.path} could not be written: {error.strerror or error}; make room and "
                f"predict again. What was there before is untouched"
            ) from None
        finally:
            self.drop()

    def drop(self) -> None:
        """Leave nothing that is not whole."""
        partial(self.path).unlink(missing_ok=True)
        self._lock.release()
