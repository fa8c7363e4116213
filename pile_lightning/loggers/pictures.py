"""The run's pictures in its trackers, and the trackers' names for the run in its folder."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from pile_lightning.loggers.by_name import run_id_file
from pile_lightning.loggers.trackio import TrackioLogger
from pile_lightning.whole_file import write_file

__all__ = ["LogPictures"]


class LogPictures(Callback):
    """Hand the pictures of a run's folder to its loggers when training ends."""

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what a tracker calls the run, so that a resume continues it."""
        for logger in trainer.loggers:
            known = _name_and_id(logger)
            if known is not None:
                write_file(run_id_file(known[0], _folder(trainer)), known[1])

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log each picture under its file's name."""
        for picture in sorted(_folder(trainer).glob("*.png")):
            for logger in trainer.loggers:
                try:
                    _log_picture(logger, picture, trainer.global_step)
                except Exception as error:  # of a tracker's server: the run itself is whole
                    rank_zero_warn(f"{type(logger).__name__} did not take {picture}: {error}")


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir)


def _name_and_id(logger: Logger) -> tuple[str, str] | None:
    if isinstance(logger, WandbLogger):
        return "wandb", str(logger.experiment.id)
    if isinstance(logger, MLFlowLogger):
        return "mlflow", str(logger.run_id)
    if isinstance(logger, TrackioLogger):
        return "trackio", logger.version
    return None


def _log_picture(logger: Any, picture: Path, step: int) -> None:
    if isinstance(logger, TensorBoardLogger):
        from matplotlib.image import imread

        logger.experiment.add_image(picture.stem, imread(picture), step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(picture.stem, [str(picture)])
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(picture))
    elif isinstance(logger, TrackioLogger):
        import trackio

        logger.experiment.log({picture.stem: trackio.Image(picture)})
