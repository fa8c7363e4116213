"""From a base and what varies to the settings of each member, with a name that says them."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

__all__ = ["check_name", "sweep_settings"]

_NAME = re.compile(r"[\w.,+=-]+")


def check_name(name: str) -> str:
    """Return a member's name, which is part of files' and metrics' names.

    Raises:
        ValueError: For one that could not be.

    Example:
        >>> check_name("lr=0.01,seed=1")
        'lr=0.01,seed=1'
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.startswith("."):
        raise ValueError(
            f"a member is called {name!r}; its name stands in files and metrics: make it of "
            f"letters, digits and _ . , + = -"
        )
    return name


def sweep_settings(
    sweep: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return the settings of a sweep by name: of a grid all combinations, of a list each.

    Args:
        sweep: Values to try for each field, or settings, each of them values by field.

    Raises:
        ValueError: For a field without values, or settings that come twice.

    Example:
        >>> sweep_settings({"optimizer.lr": [0.01, 0.02], "seed": [0]})
        {'lr=0.01': {'optimizer.lr': 0.01, 'seed': 0}, 'lr=0.02': {'optimizer.lr': 0.02, 'seed': 0}}
    """
    if isinstance(sweep, Mapping):
        for field, values in sweep.items():
            if not isinstance(values, list | tuple) or not values:
                raise ValueError(
                    f"sweep: {field} is {values!r}; give a list of the values to try, such as "
                    f"{field}: [{values if values else 1}]"
                )
        settings = [dict(zip(sweep, chosen, strict=True)) for chosen in product(*sweep.values())]
    else:
        settings = [dict(each) for each in sweep]
    if not settings or not all(settings):
        raise ValueError("sweep: there is nothing to try; name a field and the values for it")
    names = [_name(each, settings) for each in settings]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"sweep: two members would have the name {twice[0]!r}; leave one out")
    return dict(zip(names, settings, strict=True))


def _name(setting: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]) -> str:
    """Say what is particular to a setting: fields that differ, by their last word."""
    fields = dict.fromkeys(field for each in settings for field in each)
    shown = [
        field
        for field in fields
        if len({json.dumps(each.get(field), sort_keys=True) for each in settings}) > 1
    ] or list(fields)
    last = Counter(field.rpartition(".")[2] for field in shown)
    parts = [
        f"{short if last[short := field.rpartition('.')[2]] == 1 else field}={_value(value)}"
        for field in shown
        if (value := setting.get(field, ...)) is not ...
    ]
    return ",".join(parts) or "base"


def _value(value: Any) -> str:
    """Write a value in a few letters that a file name may have."""
    if isinstance(value, Mapping) and "class_path" in value:
        inner = value.get("init_args") or {}
        said = [_value(value["class_path"]), *(f"{k}-{_value(v)}" for k, v in inner.items())]
        return "-".join(said)
    text = value if isinstance(value, str) else json.dumps(value)
    if re.fullmatch(r"[a-z_]\w*(\.\w+)*\.[A-Z]\w*", text):  # the path of a class
        text = text.rpartition(".")[2]
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")
