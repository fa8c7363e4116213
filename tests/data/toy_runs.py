"""Runs that note which rows their steps were taken on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from pile_lightning.batch import TokenBatch
from pile_lightning.data import (
    MixtureConfig,
    ShortRowsConfig,
    StageConfig,
    StreamedText,
    TextData,
    TextModule,
)

MakeData = Callable[..., TextModule]

STAGED = MixtureConfig(
    weights={"prose": 3, "code": 1}, stages=[StageConfig(from_tokens=300, weights={"code": 1})]
)

# until the seventh step of four rows of 16
SHORT = ShortRowsConfig(parts=4, until_tokens=390)

STREAMED = {"num_lanes": 16, "window_bytes": 300}

# each way of packing in both paths
KINDS = {
    "prepared": (TextData, {}),
    "mixed": (TextData, {"mixture": STAGED, "packing": "best_fit"}),
    "short": (TextData, {"short_rows": SHORT}),
    "streamed": (StreamedText, STREAMED),
    "streamed-mixed": (StreamedText, STREAMED | {"mixture": STAGED, "packing": "best_fit"}),
    "streamed-short": (StreamedText, STREAMED | {"short_rows": SHORT}),
}


class Toy(LightningModule):
    """Notes which rows every optimizer step was taken on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps: list[list[Any]] = []
        self.pending: list[Any] = []
        self.batches = 0
        self.fail_at: int | None = None
        self.validated_at: list[int] = []

    def training_step(self, batch: TokenBatch) -> Tensor:
        self.batches += 1
        if self.fail_at == self.global_step and self.batches == 4:
            raise RuntimeError("stopped in the middle")
        self.pending += [tuple(row) for row in batch["input_ids"].tolist()]
        return self.weight * 1.0

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.steps.append(sorted(self.pending))
        self.pending, self.batches = [], 0

    def validation_step(self, batch: TokenBatch) -> None:
        assert not self.pending, "validation inside an optimizer step"
        if not self.validated_at or self.validated_at[-1] != self.global_step:
            self.validated_at.append(self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Callback):
    """Saves in a hook after every step, as ``ModelCheckpoint`` does, without a state of its own."""

    def __init__(self, hook: str, folder: Path) -> None:
        def save(trainer: Trainer, *_: Any) -> None:
            path = folder / f"{trainer.global_step}.ckpt"
            if not path.exists():
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


def trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    defaults = {
        "max_epochs": -1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "default_root_dir": folder,
    }
    return Trainer(callbacks=list(callbacks), **(defaults | settings))


def run(data: TextModule, root: Path, *callbacks: Callback, **settings: Any) -> tuple[Toy, Trainer]:
    ckpt_path = settings.pop("ckpt_path", None)
    toy = Toy()
    made = trainer(root, *callbacks, **settings)
    made.fit(toy, data, ckpt_path=ckpt_path)
    return toy, made
