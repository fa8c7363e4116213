"""Config dataclasses as plain data and back, so that a checkpoint holds dicts and numbers only.

A config becomes ``{"class_path": ..., "init_args": {...}}``: what a YAML file says, what a
checkpoint stores, and what ``torch.load`` reads with its safe default. Reading it back never
imports a module: importing runs code, and a checkpoint must not.
"""

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

__all__ = ["from_plain", "to_plain"]


def to_plain(value: Any) -> Any:
    """Turn configs, at any depth of dicts and lists, into plain data.

    Raises:
        TypeError: For an object that is neither a config dataclass nor plain data.

    Example:
        >>> from pile_lightning.nn import RopeConfig
        >>> to_plain(RopeConfig(base=500.0))["init_args"]["base"]
        500.0
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        init_args = {f.name: to_plain(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": init_args}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    raise TypeError(
        f"{type(value).__name__} cannot be stored in a checkpoint as a hyper-parameter: only "
        f"numbers, strings, lists, dicts and config dataclasses can; make it a frozen dataclass of "
        f"such fields"
    )


def from_plain(value: Any) -> Any:
    """Rebuild the configs inside plain data; everything else comes back as it is.

    Raises:
        ValueError: For a class whose module is not imported, or that is not a dataclass.

    Example:
        >>> from pile_lightning.nn import RopeConfig
        >>> from_plain(to_plain(RopeConfig(base=500.0))).base
        500.0
    """
    if isinstance(value, Mapping):
        if set(value) == {"class_path", "init_args"}:
            init_args = {key: from_plain(item) for key, item in value["init_args"].items()}
            # a frozen config holds tuples, which plain data spells as lists
            frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in init_args.items()}
            return _config_class(value["class_path"])(**frozen)
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    return value


def _config_class(class_path: str) -> Any:
    module_name, _, name = class_path.rpartition(".")
    module = sys.modules.get(module_name)
    if module is None:
        raise ValueError(
            f"the checkpoint was made with {class_path!r}, and its module {module_name!r} is not "
            f"imported; import it before loading (which runs its code: do so only if you trust it)"
        )
    kind = getattr(module, name, None)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise ValueError(
            f"{class_path!r} is not a config dataclass; the checkpoint needs the version of "
            f"{module_name!r} that it was made with"
        )
    return kind
