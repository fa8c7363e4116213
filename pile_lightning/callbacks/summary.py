"""What a list of checkpoints shows of each, kept with it so that no tensor has to be read."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from pile_lightning.callbacks.throughput import Throughput

__all__ = ["CheckpointSummary"]


class CheckpointSummary(Callback):
    """Add tokens and losses to each checkpoint under ``summary``.

    Scores are those of the latest validation, whose step stands beside them: a checkpoint may be
    saved before its own step is scored.
    """

    def __init__(self) -> None:
        self._scores: dict[str, Any] = {}
        self._losses: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what is known: a run that goes on knows it before it logs anything."""
        return {"scores": self._scores, "losses": self._losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what was known."""
        self._scores, self._losses = dict(state_dict["scores"]), dict(state_dict["losses"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the scores."""
        if not trainer.sanity_checking:
            self._scores = {"scored_step": trainer.global_step, **_logged(trainer, "val/")}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what is known now."""
        self._losses |= _logged(trainer, "train/")
        tokens = next((c.tokens for c in trainer.callbacks if isinstance(c, Throughput)), None)
        checkpoint.setdefault("summary", {}).update(
            {
                "tokens": tokens,
                **self._losses,
                **self._scores,
            }
        )


def _logged(trainer: Trainer, prefix: str) -> dict[str, float]:
    names = ("loss", "bits_per_byte")
    logged = trainer.callback_metrics
    return {
        f"{prefix}{n}": float(logged[f"{prefix}{n}"]) for n in names if f"{prefix}{n}" in logged
    }
