"""The loss since the last log goes on where a run does: it may be logged every hundredth step."""

from typing import Any, Protocol, cast

from lightning import Callback, LightningModule, Trainer

from pile_lightning.modules.token_mean import TokenMean

__all__ = ["KeepTokenMean"]

_KEY = "token_mean"


class Counts(Protocol):
    """A module that counts the tokens of its loss."""

    token_mean: TokenMean
    restored_mean: dict[str, float] | None


class KeepTokenMean(Callback):
    """Keep the sums since the last log in checkpoints."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the sums, over all ranks."""
        module = cast(Counts, pl_module)
        if module.restored_mean is not None:  # training has not started
            checkpoint[_KEY] = module.restored_mean
        elif hasattr(module, "token_mean"):
            checkpoint[_KEY] = module.token_mean.state_dict()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Hold them until training starts."""
        cast(Counts, pl_module).restored_mean = checkpoint.get(_KEY)
