"""Parsers whose errors fit on a line or two and name the nearest key that exists."""

import inspect
import sys
from typing import Any, NoReturn, get_args

from jsonargparse import set_parsing_settings
from lightning import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from pile_lightning.cli.errors import our_message
from pile_lightning.cli.yaml_files import refuse_repeated_keys
from pile_lightning.data import Source, StreamedText, TextData
from pile_lightning.lean_defaults import LeanDefaults
from pile_lightning.modules import CausalLM, Environment
from pile_lightning.modules.fields import CONFIGS as OF_MODULES
from pile_lightning.parser_words import concrete, field_names, shorten

__all__ = ["PileParser", "ShortErrorParser"]

CONFIGS: list[Any] = [*OF_MODULES, Source]

# the docstring under a field of a config is its help, and a config may be of any sub-class
set_parsing_settings(docstring_parse_attribute_docstrings=True, subclasses_enabled=CONFIGS)
refuse_repeated_keys()


class _ShortErrors(LeanDefaults):
    """Print what is wrong in few words, and leave with status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the shortest message that says it, without the usage."""
        own = None if ex is None else our_message(ex)
        dests = [action.dest for action in self._actions if isinstance(action.dest, str)]
        print(f"error: {own or _shorten(message, dests)}", file=sys.stderr)
        sys.exit(2)

    def add_class_arguments(self, class_type: Any, *args: Any, **settings: Any) -> list[str]:
        """Add a class's settings; of data, a text that is a value itself is never read as a path.

        For any other value that names a file, jsonargparse takes what the file holds.
        """
        added: list[str] = super().add_class_arguments(class_type, *args, **settings)
        if inspect.isclass(class_type) and issubclass(class_type, LightningDataModule):
            for action in self._actions:
                if str in get_args(getattr(action, "_typehint", None)):
                    action._enable_path = False  # type: ignore[attr-defined]
        return added


class ShortErrorParser(_ShortErrors):
    """A parser for the commands of ``pile``."""


class PileParser(_ShortErrors, LightningArgumentParser):
    """A parser for ``train.py``."""


def _shorten(message: str, dests: list[str]) -> str:
    """Say a message in short, with the nearest of what the package ships."""
    kinds = concrete(CONFIGS)
    names = field_names([CausalLM, Environment, TextData, StreamedText, Trainer, *kinds])
    of_data = 'Parser key "data"' in message
    return shorten(message, dests + names, concrete([StreamedText, TextData]) if of_data else kinds)
