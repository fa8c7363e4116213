"""What ``predict`` leaves behind: the likeliest next tokens of each row, as JSON lines."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.callbacks.data_rank import DataRank

__all__ = ["WritePredictions"]


class WritePredictions(BasePredictionWriter):
    """Write ``predictions.jsonl`` in the run's folder, a line a row, as the rows come.

    Several ranks write a file each, ``predictions-<rank>.jsonl``; of tensor-parallel peers, which
    see the same rows, the first writes.

    Args:
        top: Likeliest tokens to write for each row.
    """

    def __init__(self, top: int = 5) -> None:
        super().__init__(write_interval="batch")
        if top < 1:
            raise ValueError(f"top={top}: write at least the likeliest token")
        self.top = top

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file."""
        place = DataRank.of(trainer)
        rank = f"-{place.rank}" if place.num_ranks > 1 else ""
        self.path = Path(trainer.default_root_dir, f"predictions{rank}.jsonl")
        self.writes = place.is_first_peer
        if self.writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("")

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
        if not self.writes:
            return
        if isinstance(batch, Mapping) and "labels" in batch:
            prediction = prediction[(batch["labels"] != IGNORE_INDEX).any(dim=1)]
        codec = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        probabilities, ids = prediction.topk(min(self.top, prediction.shape[-1]), dim=-1)
        with self.path.open("a", encoding="utf-8") as file:
            for row_ids, row in zip(ids.tolist(), probabilities.tolist(), strict=True):
                line: dict[str, Any] = {"ids": row_ids, "probabilities": row}
                if codec is not None:
                    line["tokens"] = [codec.decode([i]) for i in row_ids]
                file.write(json.dumps(line) + "\n")
