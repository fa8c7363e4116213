"""Checkpoints that stay: one every so many steps or tokens, of which the newest are kept."""

import os
import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning import LightningModule, Trainer

from pile_lightning.callbacks.after_step import AfterStep
from pile_lightning.callbacks.saving import checkpoint_folder, why_not_saved
from pile_lightning.callbacks.throughput import Throughput

__all__ = ["KeptCheckpoints", "checkpoint_age"]

_NAME = re.compile(r"step-(\d+)\.ckpt")


@runtime_checkable
class Summarises(Protocol):
    """A checkpoint reader that knows a checkpoint's step without loading it."""

    def summary(self, path: str) -> dict[str, Any]:
        """Return what a checkpoint says of itself."""


class KeptCheckpoints(AfterStep):
    """Keep a history, ``checkpoints/step-00001000.ckpt`` and so on; off by default.

    An old one is removed only after a newer one is whole.

    Args:
        every_n_steps: Optimizer steps between two of them; null for none by steps.
        every_n_tokens: Tokens trained on between two of them; null for none by tokens.
        keep: How many to keep, the newest; null for all.

    Raises:
        ValueError: For an interval or a number below one.
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        every_n_tokens: float | None = None,
        keep: int | None = None,
    ) -> None:
        for name, value in (
            ("every_n_steps", every_n_steps),
            ("every_n_tokens", every_n_tokens),
            ("keep", keep),
        ):
            if value is not None and value < 1:
                raise ValueError(
                    f"kept_checkpoints.{name}={value} is below 1; choose at least 1, or null"
                )
        self.every_n_steps = every_n_steps
        self.every_n_tokens = every_n_tokens
        self.keep = keep
        self._tokens = 0
        self._loaded: dict[str, int] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder, and what counts tokens.

        Raises:
            ValueError: Where tokens are to be counted and nothing counts them.
        """
        self.folder = checkpoint_folder(trainer)
        self._counter = next((c for c in trainer.callbacks if isinstance(c, Throughput)), None)
        if self.every_n_tokens is not None and self._counter is None and stage == "fit":
            raise ValueError(
                f"kept_checkpoints.every_n_tokens={self.every_n_tokens:g} needs the callback "
                f"Throughput, which counts tokens; add it to the trainer's callbacks"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the last step that was seen, and the tokens by then."""
        return {"step": self._over, "tokens": self._tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there: another checkpoint of a step may be saved before that step's here."""
        self._loaded = {"step": state_dict["step"], "tokens": state_dict["tokens"]}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from here, or from before the step whose checkpoint is due."""
        loaded, self._loaded = self._loaded, None
        self._over = loaded["step"] if loaded else trainer.global_step
        self._tokens = loaded["tokens"] if loaded else self._counted()

    def after_step(self, trainer: Trainer) -> None:
        """Save after an optimizer step that completes an interval."""
        step, before, self._tokens = trainer.global_step, self._tokens, self._counted()
        due = self.every_n_steps is not None and step % self.every_n_steps == 0
        if self.every_n_tokens is not None:
            due |= self._tokens // self.every_n_tokens > before // self.every_n_tokens
        if due:
            trainer.save_checkpoint(os.path.join(self.folder, f"step-{step:08}.ckpt"))
            self._thin_out(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Thin out after the last save is whole."""
        super().on_train_end(trainer, pl_module)
        if not trainer.fast_dev_run and (self.every_n_steps or self.every_n_tokens):
            why_not_saved(trainer, self.folder, wait=True)
            self._thin_out(trainer)

    def _counted(self) -> int:
        return 0 if self._counter is None else self._counter.tokens

    def _thin_out(self, trainer: Trainer) -> None:
        """Remove what is older than the newest whole ones; a save under way is no such one yet."""
        if self.keep is None or not trainer.is_global_zero:
            return
        paths = [
            path for path in Path(self.folder).glob("step-*.ckpt") if _NAME.fullmatch(path.name)
        ]
        # by their age: a run that went back comes by lower steps again
        ages = {path: checkpoint_age(trainer, path) for path in paths}
        whole = sorted((age, path) for path, age in ages.items() if age is not None)
        kept = [path for _, path in whole[-self.keep :]]
        if len(kept) < self.keep:
            return
        oldest = min(path.stat().st_mtime for path in kept)
        for path, age in ages.items():
            # one that is not whole may be a save under way
            if path not in kept and (age is not None or path.stat().st_mtime < oldest):
                trainer.strategy.remove_checkpoint(str(path))


def checkpoint_age(trainer: Trainer, path: Path) -> tuple[int, float] | None:
    """Return what sorts whole checkpoints by age, or None for one that is not whole."""
    reader = trainer.strategy.checkpoint_io
    if not isinstance(reader, Summarises):
        return 0, path.stat().st_mtime
    try:
        summary = reader.summary(str(path))
        # not the time alone: clocks are set back
        return int(summary.get("save_number", 0)), float(summary["saved_at"])
    except (ValueError, OSError):
        return None
