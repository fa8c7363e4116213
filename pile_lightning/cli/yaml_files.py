"""YAML that the command line's parser reads: loaders keep the last of two equal keys in silence."""

from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from pile_lightning.config_file import check_config_text

__all__ = ["refuse_repeated_keys"]


def refuse_repeated_keys() -> None:
    """Let every config that is parsed from now on be refused where a key stands twice."""
    plain = get_loader("yaml")

    def load(stream: str) -> Any:
        if "\n" in stream.strip():  # a file, no value of the command line
            check_config_text(stream, name="the config")
        return plain(stream)

    set_loader("yaml", load, exceptions=(yaml.YAMLError,))
