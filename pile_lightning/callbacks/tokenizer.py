"""Keep the tokenizer beside the checkpoints: without it a model's numbers are no text."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from pile_lightning.callbacks.side_files import SideFiles

__all__ = ["SaveTokenizer"]


class SaveTokenizer(Callback):
    """Write the data's tokenizer as ``tokenizer.json`` into the run's folder before training."""

    def __init__(self) -> None:
        self._files = SideFiles()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        path = Path(trainer.log_dir or trainer.default_root_dir, "tokenizer.json")
        tokenizer = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        if tokenizer is not None and not trainer.fast_dev_run and trainer.is_global_zero:
            self._files.write(path, lambda: tokenizer.save(path))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it where that failed before."""
        self._files.retry()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it where that failed before."""
        self._files.retry()
