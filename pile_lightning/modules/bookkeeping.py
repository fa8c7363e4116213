"""What a module does at each moment of a run, as callbacks: Lightning's hooks belong to the user.

A sub-class may override any hook without ``super()`` and loses nothing. The callbacks come last of
the trainer's, but for those that save.
"""

from typing import Any, Protocol, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from pile_lightning.modules.logged_names import LoggedNames
from pile_lightning.nn import check_weights
from pile_lightning.optim import describe_groups

__all__ = ["Bookkeeping", "CheckWeights", "add_missing"]


class KeepsBooks(Protocol):
    """A module that counts tokens, divides gradients and scores held-out text."""

    logged_names: LoggedNames
    """Which metrics it logs."""

    def open_scores(self) -> None:
        """Open the metrics."""

    def open_counters(self) -> None:
        """Open the counters of training."""

    def divide_gradients(self) -> None:
        """Divide gradients by the tokens of the global batch."""

    def log_training(self, outputs: Any, batch_idx: int) -> None:
        """Log what training costs and by which rate, where it is time."""

    def log_scores(self, prefix: str) -> None:
        """Log the scores, and begin new ones."""


class CheckWeights(Callback):
    """Refuses to begin where weights of a network could not be read, and no checkpoint came.

    Raises:
        FileNotFoundError: Then, whatever is begun.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise if weights are missing."""
        check_weights(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise if weights are missing."""
        check_weights(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise if weights are missing."""
        check_weights(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise if weights are missing."""
        check_weights(pl_module)


class Bookkeeping(Callback):
    """Counts, divides, logs and scores for a :class:`LanguageModule`."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the metrics, one column a domain of the data."""
        _books(pl_module).open_scores()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print which parameters are stepped by which rates, before there is a progress bar."""
        for optimizer in trainer.optimizers:
            rank_zero_info(describe_groups(optimizer))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the counters."""
        _books(pl_module).open_counters()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Let a step's metrics replace ours."""
        _books(pl_module).logged_names.begin_step()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Divide gradients by the tokens of the global batch; clipping comes after this."""
        _books(pl_module).divide_gradients()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the mean loss of the tokens since the last time, and the learning rate."""
        _books(pl_module).logged_names.begin_hook()
        _books(pl_module).log_training(outputs, batch_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores under ``val/``."""
        _books(pl_module).logged_names.begin_hook()
        _books(pl_module).log_scores("val")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let every name be logged for the epoch."""
        _books(pl_module).logged_names.begin_hook()

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a step's metrics replace ours."""
        _books(pl_module).logged_names.begin_step()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a step's metrics replace ours."""
        _books(pl_module).logged_names.begin_step()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores under ``test/``."""
        _books(pl_module).logged_names.begin_hook()
        _books(pl_module).log_scores("test")


def add_missing(trainer: Trainer, *callbacks: Callback) -> list[Callback]:
    """Return those of ``callbacks`` that the trainer has none of the same class of, from before."""
    known = {type(callback) for callback in trainer.callbacks}
    return [callback for callback in callbacks if type(callback) not in known]


def _books(pl_module: LightningModule) -> KeepsBooks:
    return cast(KeepsBooks, pl_module)
