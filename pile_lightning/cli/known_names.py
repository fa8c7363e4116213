"""The settings and classes that a message about a wrong one may suggest."""

from collections.abc import Sequence
from typing import Any

from lightning import Trainer

from pile_lightning.data import Source, StreamedText, TextData
from pile_lightning.modules import CausalLM, Environment
from pile_lightning.modules.fields import CONFIGS as OF_MODULES
from pile_lightning.parser_words import concrete, field_names, shorten

__all__ = ["CONFIGS", "shorten_message"]

CONFIGS: list[Any] = [*OF_MODULES, Source]
"""The kinds of config that a field may be of: any sub-class may be named by class_path."""


def shorten_message(message: str, dests: Sequence[str]) -> str:
    """Return a parser's message in short, with the nearest of what the package ships.

    Args:
        message: The parser's.
        dests: Names of its own settings.
    """
    kinds = concrete(CONFIGS)
    names = field_names([CausalLM, Environment, TextData, StreamedText, Trainer, *kinds])
    of_data = 'Parser key "data"' in message
    known = [*dests, *names]
    return shorten(message, known, concrete([StreamedText, TextData]) if of_data else kinds)
