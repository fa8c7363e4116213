"""The command line: ``train.py`` (fit, validate, test, predict) and ``pile``."""

from pile_lightning.cli.commands import main
from pile_lightning.cli.train import PileCLI, train

__all__ = ["PileCLI", "main", "train"]
