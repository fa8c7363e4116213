"""When to save: the last step to go on from, and the best score to keep.

Two checkpoints of fixed names, overwritten by an atomic writer, so that a run's folder says by
itself what is in it and can be moved. (``ModelCheckpoint`` stores absolute paths and numbers its
files.)
"""

import math
import os
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_warn

from pile_lightning.callbacks.after_step import AfterStep
from pile_lightning.callbacks.history import Summarises
from pile_lightning.callbacks.saving import checkpoint_folder, why_not_saved

__all__ = ["BestCheckpoint", "LastCheckpoint"]


class LastCheckpoint(AfterStep):
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
        self._saved: int | None = 0
        """The step that ``last.ckpt`` is of, None where it lacks something of it."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder (on all ranks: Lightning broadcasts it)."""
        self.path = os.path.join(checkpoint_folder(trainer), "last.ckpt")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the step that training starts from as saved, if it is ``last.ckpt`` that it had."""
        super().on_train_start(trainer, pl_module)
        resumed = trainer.ckpt_path
        # another checkpoint may know more of its step: what it scores
        other = resumed is not None and os.path.realpath(resumed) != os.path.realpath(self.path)
        self._saved = None if other else trainer.global_step

    def after_step(self, trainer: Trainer) -> None:
        """Save after an optimizer step, never between two micro-batches of one."""
        if (
            trainer.global_step % self.every_n_steps == 0
            or trainer.global_step == trainer.max_steps
        ):
            self.save_now(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the checkpoint of the last step have its scores."""
        if trainer.state.fn == "fit" and trainer.global_step == trainer.max_steps:
            self._saved = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step with its scores, and that of a run that was stopped early.

        Raises:
            OSError: Where it cannot be saved: a run must not end well without its outcome.
        """
        if trainer.fast_dev_run:
            return
        if self._saved == trainer.global_step and why_not_saved(trainer, self.path, wait=True):
            self._saved = None
        self.save_now(trainer)
        reason = why_not_saved(trainer, self.path, wait=True)
        if reason is not None:
            raise OSError(
                f"the run ended at step {trainer.global_step}, which could not be saved to "
                f"{self.path}: {reason}. Make room, and go on from an earlier checkpoint"
            )

    def save_now(self, trainer: Trainer) -> None:
        """Save at once, on all ranks, unless this step is saved."""
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
        self._before = self.state_dict()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder (on all ranks: Lightning broadcasts it)."""
        self.path = os.path.join(checkpoint_folder(trainer), "best.ckpt")

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far and its step."""
        return {"best_score": self.best_score, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score so far."""
        self.best_score = state_dict["best_score"]
        self.best_step = state_dict["best_step"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the best score to what the checkpoint says of itself."""
        checkpoint.setdefault("summary", {}).update(self.state_dict())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from what is there: the last checkpoint is saved before its step is scored."""
        kept = self._kept(trainer) if trainer.is_global_zero and trainer.global_step > 0 else None
        kept = trainer.strategy.broadcast(kept)
        # a best of beyond the step that training starts from is of steps that are to be repeated
        if kept is not None and (kept["best_step"] or 0) <= trainer.global_step:
            self.load_state_dict(kept)
        self._before = self.state_dict()

    def _kept(self, trainer: Trainer) -> dict[str, Any] | None:
        """Return the best of the checkpoint that is there; none is known if it is damaged."""
        reader = trainer.strategy.checkpoint_io
        try:
            if isinstance(reader, Summarises):
                state = reader.summary(self.path)
            else:
                checkpoint = reader.load_checkpoint(self.path, weights_only=True)
                state = checkpoint.get("callbacks", {}).get(self.state_key, {})
        except FileNotFoundError:
            return None
        except ValueError as error:
            rank_zero_warn(f"The next score counts as the best, and replaces this one: {error}")
            return {"best_score": None, "best_step": None}
        if state.get("best_score") is None:
            return None
        return {name: state[name] for name in ("best_score", "best_step")}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where the score is the best so far.

        Raises:
            ValueError: For a score that validation did not log.
        """
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:
            return
        if self.monitor not in trainer.callback_metrics:
            known = sorted(trainer.callback_metrics)
            remedy = f"choose one of {', '.join(known)}" if known else "log a score in validation"
            if "val/loss" in known:
                remedy = f"set best_checkpoint.monitor: val/loss, or {remedy}"
            if self.monitor.endswith("bits_per_byte"):
                remedy = f"it needs num_bytes in the batches of held-out text; {remedy}"
            raise ValueError(f"best_checkpoint.monitor={self.monitor!r} was not logged; {remedy}")
        score = float(trainer.callback_metrics[self.monitor])
        if math.isnan(score):
            return  # no later score would be smaller
        self._forget_unsaved(trainer)  # one that was saved in the background
        # ranks hold the same reduced score, so all of them save or none
        if self.best_score is None or score < self.best_score:
            self._before = self.state_dict()
            self.best_score, self.best_step = score, trainer.global_step
            trainer.save_checkpoint(self.path)
            self._forget_unsaved(trainer)

    def _forget_unsaved(self, trainer: Trainer) -> None:
        """Go back to the best that is there, where the save of a better one failed."""
        if why_not_saved(trainer, self.path) is not None:
            self.load_state_dict(self._before)
