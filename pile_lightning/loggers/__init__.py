"""Experiment trackers by one word: ``--logger tensorboard``, wandb, mlflow or trackio."""

from pile_lightning.loggers.by_name import LoggerName, make_logger
from pile_lightning.loggers.pictures import LogPictures

__all__ = ["LogPictures", "LoggerName", "make_logger"]
