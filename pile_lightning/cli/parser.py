"""Parsers whose errors fit on a line or two and name the nearest key that exists."""

import difflib
import inspect
import re
import sys
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from pile_lightning.cli.errors import our_message
from pile_lightning.data import Source, StreamedText, TextData
from pile_lightning.modules import CausalLM
from pile_lightning.nn import (
    NetworkConfig,
    NormConfig,
    PositionsConfig,
    ShortcutsConfig,
    TablesConfig,
)
from pile_lightning.optim import OptimizerConfig, ScheduleConfig

__all__ = ["PileParser", "ShortErrorParser"]

CONFIGS: list[Any] = [
    NetworkConfig,
    NormConfig,
    OptimizerConfig,
    PositionsConfig,
    ScheduleConfig,
    ShortcutsConfig,
    Source,
    TablesConfig,
]

# the docstring under a field of a config is its help, and a config may be of any sub-class
set_parsing_settings(docstring_parse_attribute_docstrings=True, subclasses_enabled=CONFIGS)


class _ShortErrors(ArgumentParser):
    """Print what is wrong in few words, and leave with status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the shortest message that says it, without the usage."""
        own = None if ex is None else our_message(ex)
        dests = [action.dest for action in self._actions if isinstance(action.dest, str)]
        print(f"error: {own or shorten(message, dests + field_names())}", file=sys.stderr)
        sys.exit(2)


class ShortErrorParser(_ShortErrors):
    """A parser for the commands of ``pile``."""


class PileParser(_ShortErrors, LightningArgumentParser):
    """A parser for ``train.py``."""


def shorten(message: str, known: list[str]) -> str:
    """Say what a parser's message says, with the nearest known name after one that is not.

    Example:
        >>> shorten("Option 'dmodel' is not accepted", ["d_model", "num_layers"])
        "'dmodel' is not a setting here; did you mean 'd_model'?"
    """
    unknown = re.search(r"Option '([^']+)' is not accepted", message)
    if unknown is None:
        unknown = re.search(r"unrecognized arguments: --(\S+)", message)
    if unknown is None:
        unknown = re.search(r"No action for key \"([^\"]+)\"", message)
    if unknown is None:
        return _tidy(message)
    key = unknown.group(1).split("=")[0]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        last = key.rpartition(".")[2]
        near = difflib.get_close_matches(last, known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else "; --help lists those that there are"
    return f"{key!r} is not a setting here{hint}"


def _tidy(message: str) -> str:
    r"""Drop a parser's own words from a message about a value.

    Example:
        >>> _tidy("Parser key \"d_model\":\n  Expected a <class 'int'>. Got value: abc")
        'd_model: expected int, got abc'
    """
    text = re.sub(r"\s*\n\s*", " ", message.strip())
    text = re.sub(r'Parser key "([^"]+)":', r"\1:", text)
    text = re.sub(r"Expected an? <class '([^']+)'>\. Got value:", r"expected \1, got", text)
    wrong = re.search(r"does not correspond to a subclass of (\w+).* value: (\S+)$", text)
    if wrong is not None:
        return f"{text.split(':')[0]}: {wrong.group(2)} is not derived from {wrong.group(1)}"
    missing = re.search(r"(?:dot import path string: |has no attribute ')(\w+)", text)
    if missing is None:
        return text
    name, field = missing.group(1), text.split(":")[0]
    if name == "None":  # the parser takes it for the name of a class
        return f"{field}: null stands in a config file only; put it into one, and add --config FILE"
    kinds = _concrete([StreamedText, TextData] if field == "data" else CONFIGS)
    classes = sorted(kind.__name__ for kind in kinds)
    near = difflib.get_close_matches(name, classes, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"ours are {', '.join(classes)}"
    return f"{field}: there is no class {name!r}; {hint}"


def _concrete(kinds: list[Any]) -> list[Any]:
    """Return those of the classes and their sub-classes that can be made."""
    found = [each for kind in kinds for each in [kind, *_concrete(kind.__subclasses__())]]
    return [each for each in found if not inspect.isabstract(each) and each.__name__[0] != "_"]


def field_names() -> list[str]:
    """Return the names of all settings of the shipped classes."""
    kinds = [CausalLM, TextData, StreamedText, Trainer]
    kinds += _concrete(CONFIGS)
    names = {name for kind in kinds for name in inspect.signature(kind).parameters}
    return sorted(names - {"self", "args", "kwargs"})
