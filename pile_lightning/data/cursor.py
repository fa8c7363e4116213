"""Where training is in the stream of rows: the count that goes into a checkpoint.

It counts rows of finished optimizer steps. Lightning's own count of batches is the source: it
fetches one batch ahead of what is trained on, and a checkpoint can be saved between two of its
counters, in the middle of an accumulated step, or after ``fit`` has ended.
"""

import warnings
from typing import TYPE_CHECKING, Any

from pile_lightning.loop_state import align_batches, finished_batches

if TYPE_CHECKING:
    from lightning import Trainer

__all__ = ["RowCursor"]


class RowCursor:
    """Counts the rows of finished optimizer steps, over all ranks and all runs before this one."""

    def __init__(self) -> None:
        self._batch_size = 1
        self._start = 0
        self._steps_before = 0
        self._accumulated = 1
        self._trainer: Trainer | None = None
        self._loaded: dict[str, Any] | None = None

    @property
    def rows(self) -> int:
        """Rows behind the cursor: the position of the first row of the next optimizer step."""
        if self._loaded is not None:
            return int(self._loaded["rows"])
        return self._start + (self._steps() - self._steps_before) * self._batch_size

    def state_dict(self) -> dict[str, Any]:
        """Return the state, equal on all ranks."""
        return self._loaded or {"rows": self.rows, "accumulated": self._accumulated}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state when the next run begins."""
        self._loaded = {"rows": state["rows"], "accumulated": state["accumulated"]}

    def begin(self, trainer: "Trainer | None", batch_size: int) -> None:
        """Start or go on counting for a trainer, whose own progress has been restored by now.

        Args:
            trainer: Who trains.
            batch_size: Rows of one optimizer step from now on.
        """
        loaded, self._loaded = self._loaded, None
        if loaded is None and trainer is self._trainer:
            # asked for the loader again, within a run or for more steps
            self._start, self._steps_before = self.rows, self._steps()
            self._batch_size = batch_size
            return
        self._batch_size = batch_size
        self._trainer = trainer
        self._start = loaded["rows"] if loaded else 0
        self._accumulated = trainer.accumulate_grad_batches if trainer else 1
        if trainer and loaded:
            align_batches(trainer, before=loaded["accumulated"], now=self._accumulated)
        elif self._batches():
            warnings.warn(
                "the checkpoint holds no position of this data module (it was trained on another "
                "one, or on loaders of its own): its rows start at the first",
                stacklevel=2,
            )
        self._steps_before = self._steps()

    def _batches(self) -> int:
        """Batches that the trainer is done with, in all."""
        return 0 if self._trainer is None else finished_batches(self._trainer)

    def _steps(self) -> int:
        return self._batches() // self._accumulated
