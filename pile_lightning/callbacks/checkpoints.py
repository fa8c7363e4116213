"""When to save: the last step to go on from, and the best score to keep.

Two files of fixed names, overwritten by an atomic writer, so that a run's folder says by itself
what is in it and can be moved. (``ModelCheckpoint`` stores absolute paths and numbers its files.)
"""

import math
import os
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

__all__ = ["BestCheckpoint", "LastCheckpoint"]


class LastCheckpoint(Checkpoint):
    """Keep ``checkpoints/last.ckpt`` in the run's folder: every few steps and at the end.

    Args:
        every_n_steps: Optimizer steps between two saves.
    """

    def __init__(self, every_n_steps: int = 250) -> None:
        if every_n_steps < 1:
            raise ValueError(
                f"every_n_steps={every_n_steps}: a checkpoint is saved every so many steps; "
                f"choose at least 1"
            )
        self.every_n_steps = every_n_steps
        self._saved = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder (on all ranks: Lightning broadcasts it)."""
        self.path = _path(trainer, "last.ckpt")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the step that training starts from as saved."""
        self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after an optimizer step, never between two micro-batches of one."""
        # the last step too: saved after the loop, Lightning's count of batches is one too high when
        # that checkpoint is gone on with, and metrics are logged under the wrong steps
        if (
            trainer.global_step % self.every_n_steps == 0
            or trainer.global_step == trainer.max_steps
        ):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step of a run that was stopped early."""
        self._save(trainer)

    def save_now(self, trainer: Trainer, *, again: bool = False) -> None:
        """Save at once, on all ranks.

        Args:
            trainer: The trainer.
            again: Also where this step is saved already.
        """
        if again:
            self._saved = -1
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        # the step that was saved stays current until the next one is whole
        if self._saved != trainer.global_step and not trainer.fast_dev_run:
            trainer.save_checkpoint(self.path)
            self._saved = trainer.global_step


class BestCheckpoint(Checkpoint):
    """Keep ``checkpoints/best.ckpt`` in the run's folder: the step with the best held-out score.

    Args:
        monitor: Name of the score; smaller is better.
    """

    def __init__(self, monitor: str = "val/bits_per_byte") -> None:
        self.monitor = monitor
        self.best_score: float | None = None
        self.best_step: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder (on all ranks: Lightning broadcasts it)."""
        self.path = _path(trainer, "best.ckpt")

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far and its step."""
        return {"best_score": self.best_score, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score so far."""
        self.best_score = state_dict["best_score"]
        self.best_step = state_dict["best_step"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from the file: the last checkpoint is saved before its step is scored."""
        kept = self._kept(trainer) if trainer.is_global_zero and trainer.global_step > 0 else None
        kept = trainer.strategy.broadcast(kept)
        # a best of beyond the step that training starts from is of steps that are to be repeated
        if kept is None or kept["best_score"] is None or kept["best_step"] > trainer.global_step:
            return
        if self.best_score is None or kept["best_score"] < self.best_score:
            self.load_state_dict(kept)

    def _kept(self, trainer: Trainer) -> dict[str, Any] | None:
        if not os.path.isfile(self.path):
            return None
        checkpoint = trainer.strategy.checkpoint_io.load_checkpoint(self.path, weights_only=True)
        state: dict[str, Any] | None = checkpoint.get("callbacks", {}).get(self.state_key)
        return state

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where the score is the best so far.

        Raises:
            ValueError: For a score that validation did not log.
        """
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:
            return
        if self.monitor not in trainer.callback_metrics:
            raise ValueError(
                f"best_checkpoint.monitor={self.monitor!r} was not logged; choose one of "
                f"{', '.join(sorted(trainer.callback_metrics))}"
            )
        score = float(trainer.callback_metrics[self.monitor])
        if math.isnan(score):
            return  # no later score would be smaller
        # ranks hold the same reduced score, so all of them save or none
        if self.best_score is None or score < self.best_score:
            self.best_score, self.best_step = score, trainer.global_step
            trainer.save_checkpoint(self.path)


def _path(trainer: Trainer, name: str) -> str:
    return os.path.join(trainer.log_dir or trainer.default_root_dir, "checkpoints", name)
