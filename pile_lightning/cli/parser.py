"""The parser of ``train.py``, and what holds for all parsers of settings."""

from collections.abc import Sequence

from jsonargparse import set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

from pile_lightning.cli.known_names import CONFIGS
from pile_lightning.cli.short_errors import ShortErrorParser
from pile_lightning.cli.yaml_files import refuse_repeated_keys

__all__ = ["PileParser", "read_field_docs"]

set_parsing_settings(subclasses_enabled=CONFIGS)  # a config may be of any sub-class
refuse_repeated_keys()


def read_field_docs(arguments: Sequence[str]) -> None:
    """Let the docstring under a field of a config be its help, where help is asked for.

    Reading them takes a second and a half, which a run should not cost.
    """
    wanted = any("help" in word or "comments" in word or word == "-h" for word in arguments)
    set_parsing_settings(docstring_parse_attribute_docstrings=wanted)


class PileParser(ShortErrorParser, LightningArgumentParser):
    """A parser for ``train.py``."""
