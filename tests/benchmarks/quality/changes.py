"""A shipped config with some of its fields set otherwise."""

import argparse
import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["change", "changed", "find_config", "read_config", "write_config"]

REPOSITORY = Path(__file__).parents[3]

Config = dict[str, Any]


def find_config(name: str) -> Path:
    """Return the file of that name, from here or from the repository."""
    return Path(name) if Path(name).is_file() else REPOSITORY / name


def read_config(path: Path) -> Config:
    """Read a YAML file."""
    config: Config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def change(text: str) -> tuple[str, Any]:
    """Read a change from a command line, its value being JSON.

    Raises:
        ArgumentTypeError: If it cannot be read.

    Example:
        >>> change("model.width=3")
        ('model.width', 3)
    """
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a dotted name, '=' and JSON; write text in quotes, as in "
            f"'data.init_args.tokenizer=\"byte\"'"
        ) from None


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return ``config`` with each dotted name of ``changes`` set, whole dicts put in as they are.

    Example:
        >>> changed({"model": {"width": 1, "depth": 2}}, {"model.width": 3, "data.rows": 4})
        {'model': {'width': 3, 'depth': 2}, 'data': {'rows': 4}}
    """
    config = copy.deepcopy(config)
    for name, value in changes.items():
        *parents, last = name.split(".")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = copy.deepcopy(value)
    return config


def write_config(config: Config, path: Path) -> Path:
    """Write a YAML file and return where."""
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path
