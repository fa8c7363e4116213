"""Keep the tokenizer beside the checkpoints: without it a model's numbers are no text."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

__all__ = ["SaveTokenizer"]


class SaveTokenizer(Callback):
    """Write the data's tokenizer as ``tokenizer.json`` into the run's folder before training."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        tokenizer = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        if tokenizer is not None and not trainer.fast_dev_run:
            self._save(tokenizer, folder)

    @staticmethod
    @rank_zero_only
    def _save(tokenizer: object, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(folder / "tokenizer.json")  # type: ignore[attr-defined]
