"""When a step is over: its row is in ``metrics.csv``, and nothing of the next is begun."""

from abc import abstractmethod
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

__all__ = ["AfterStep"]


class AfterStep(Checkpoint):
    """Saves when a step is over, before its validation.

    At the end of a batch, where Lightning's own callbacks save, the step is not logged yet: a run
    that is killed between the two would go on without that row.
    """

    _over = 0

    @abstractmethod
    def after_step(self, trainer: Trainer) -> None:
        """Save, if it is time: called once for each step, on all ranks."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the step that training starts from as seen."""
        self._over = trainer.global_step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether a step is over."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._look(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """See whether a step is over."""
        self._look(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether a step is over."""
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        if self._over != trainer.global_step and not trainer.fast_dev_run:
            self._over = trainer.global_step
            self.after_step(trainer)
