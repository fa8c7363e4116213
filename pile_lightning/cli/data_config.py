"""The data of a run, made from the config and the arguments that ``train.py`` takes.

Of a config only what concerns the data is read; of its model, callbacks and the rest nothing is,
so that they need not be importable, or finished.
"""

import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]
from lightning import seed_everything

from pile_lightning.cli.config_file import run_folder
from pile_lightning.cli.parser import read_field_docs
from pile_lightning.cli.pile_cli import TRAINER_DEFAULTS
from pile_lightning.cli.short_errors import ShortErrorParser
from pile_lightning.config_file import read_config
from pile_lightning.data import StreamedText, TextData, TextModule
from pile_lightning.shipped_configs import find_config

__all__ = ["DataConfig", "DataParser", "add_data_arguments", "make_data", "training_command"]

_OF_TRAINER = {"max_steps": int, "default_root_dir": str}


class DataParser(ShortErrorParser):
    """A parser for what concerns the data."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say of arguments that train.py takes that they are none here."""
        other = re.search(
            r"--((?:model|trainer|\w+_checkpoint|samples|predictions|non_finite|spikes|watchdog|preemption)[.=]\S*)",
            message,
        )
        if other and "unrecognized" in message:
            key = other.group(1).split("=")[0]
            message = f"{key!r} does not concern the data; leave it out here"
        super().error(message, ex)


class DataConfig(ActionConfigFile):
    """Takes a config of ``train.py``, and of it what concerns the data."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Read the file and hand its part on."""
        super().__call__(  # type: ignore[no-untyped-call]
            parser, cfg, _data_part(find_config(values)), option_string
        )


def add_data_arguments(parser: ArgumentParser) -> None:
    """Add ``--config``, ``--data`` and what else the data depend on, as ``train.py`` has them."""
    read_field_docs(sys.argv)
    parser.add_argument(
        "-c",
        "--config",
        action=DataConfig,
        help="The run's config; of several, later ones win.",
    )
    parser.add_subclass_arguments(TextModule, "data", fail_untyped=False, required=True)
    parser.set_defaults({"data": {"class_path": "pile_lightning.TextData"}})
    parser.add_argument(
        "--seed_everything", type=bool | int, default=0, help="Seed of the random numbers."
    )
    helps = {"max_steps": "Optimizer steps of the run.", "default_root_dir": "The run's folder."}
    for name, kind in _OF_TRAINER.items():
        default = TRAINER_DEFAULTS[name]
        parser.add_argument(f"--trainer.{name}", type=kind, default=default, help=helps[name])


def make_data(parser: ArgumentParser, settings: Namespace) -> TextData | StreamedText:
    """Make the data module that settings describe.

    Raises:
        TypeError: For a data module of another kind than ours.
    """
    seed = settings.seed_everything
    if seed is not False:
        seed_everything(None if seed is True else seed, workers=True, verbose=False)
    data = parser.instantiate(settings).data
    if not isinstance(data, TextData | StreamedText):
        raise TypeError(
            f"{type(data).__name__} is neither a TextData nor a StreamedText, so there is no text "
            f"to prepare or inspect; derive it from one of the two"
        )
    return data


def training_command(arguments: Sequence[str], *, without: Sequence[str] = ()) -> str:
    """Return the command that trains with the same arguments.

    Args:
        arguments: Those that were given.
        without: Names of those that ``train.py`` does not know; they are left out.

    Example:
        >>> training_command(["--config=x.yaml", "--rows", "3"], without=["rows"])
        'python train.py fit --config=x.yaml'
    """
    kept: list[str] = []
    skip = False
    for argument in arguments:
        name = argument.removeprefix("--").split("=")[0]
        if skip:
            skip = False
        elif argument.startswith("--") and name in without:
            skip = "=" not in argument
        else:
            kept.append(argument)
    return shlex.join(["python", "train.py", "fit", *kept])


def _data_part(path: Path) -> str:
    """Return, as YAML, what a config says about the data.

    Raises:
        FileNotFoundError: Where there is no such file.
        ValueError: For a file that is no config.
    """
    config = read_config(path)
    part: dict[str, Any] = {
        key: config[key] for key in ("seed_everything", "data") if key in config
    }
    trainer = config.get("trainer")
    if isinstance(trainer, dict):
        part["trainer"] = {key: trainer[key] for key in _OF_TRAINER if key in trainer}
        folder = run_folder(path)
        if folder is not None:
            part["trainer"]["default_root_dir"] = folder
    return str(yaml.safe_dump(part, sort_keys=False))
