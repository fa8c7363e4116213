"""A shipped config with some of its fields set otherwise."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["changed", "find_config", "read_config", "write_config"]

REPOSITORY = Path(__file__).parents[3]

Config = dict[str, Any]


def find_config(name: str) -> Path:
    """Return the file of that name, from here or from the repository."""
    return Path(name) if Path(name).is_file() else REPOSITORY / name


def read_config(path: Path) -> Config:
    """Read a YAML file."""
    config: Config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


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
