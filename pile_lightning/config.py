"""Settings as plain data and back, so that a checkpoint holds dicts, lists and numbers only.

A config becomes ``{"class_path": ..., "init_args": {...}}``: what a YAML file says, what a
checkpoint stores, and what ``torch.load`` reads with its safe default. The few other kinds that
have a spelling (enums, sets, paths, dtypes, small arrays) take the same form. Reading it back never
imports a module: importing runs code, and a checkpoint must not.
"""

import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

__all__ = ["as_written", "check_plain", "find_imported", "from_plain", "not_imported", "to_plain"]

_KEYS = {"class_path", "init_args"}
_PLAIN = (bool, int, float, str)
_MOST = 10_000
"""Numbers of an array that is a setting; what has more is data."""

_READERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "builtins.dict": lambda args: dict(args["items"]),
    "builtins.frozenset": lambda args: frozenset(args["items"]),
    "builtins.set": lambda args: set(args["items"]),
    "collections.OrderedDict": lambda args: OrderedDict(args["items"]),
    "numpy.array": lambda args: np.array(args["values"], dtype=args["dtype"]),
    "pathlib.Path": lambda args: Path(args["path"]),
    "torch.device": lambda args: torch.device(args["name"]),
    "torch.dtype": lambda args: _dtype(args["name"]),
    "torch.tensor": lambda args: torch.tensor(args["values"], dtype=_dtype(args["dtype"])),
}


def to_plain(value: Any, *, of: str = "", exact: bool = False) -> Any:
    """Turn settings, at any depth of dicts and lists, into plain data.

    Args:
        value: The settings.
        of: Their name, for an error.
        exact: Whether a dict that looks like the plain form of a config comes back as a dict; by
            default it stands for the config.

    Raises:
        TypeError: For an object that has no plain form.

    Example:
        >>> from pile_lightning.nn import RopeConfig
        >>> to_plain(RopeConfig(base=500.0))["init_args"]["base"]
        500.0
    """
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, np.generic):
        return to_plain(value.item(), of=of)
    if type(value) in (list, tuple):
        items = enumerate(value)
        return type(value)(to_plain(item, of=f"{of}[{n}]", exact=exact) for n, item in items)
    if type(value) in (dict, OrderedDict):
        return _of_dict(value, of, exact=exact)
    if isinstance(value, Enum):
        return _written(type(value), name=value.name)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if field.init]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        names = list(value._fields)
    else:
        return _of_value(value, of)
    dotted = {name: f"{of}.{name}" if of else name for name in names}
    return _written(
        type(value),
        **{n: to_plain(getattr(value, n), of=path, exact=exact) for n, path in dotted.items()},
    )


def _of_dict(value: dict[Any, Any], of: str, *, exact: bool) -> Any:
    """Return a dict as it is, or as its items where it would be taken for something else."""
    items = [
        (
            to_plain(key, of=f"a key of {of}", exact=exact),
            to_plain(item, of=f"{of}[{key!r}]", exact=exact),
        )
        for key, item in value.items()
    ]
    is_plain = all(type(key) in (*_PLAIN, type(None)) for key in value)
    if type(value) is dict and is_plain and not (exact and value.keys() == _KEYS):
        return dict(items)
    return _written(type(value), items=items)


def _of_value(value: Any, of: str) -> Any:
    """Return the form of one of the other kinds that have any."""
    if type(value) in (set, frozenset):
        return _written(type(value), items=[to_plain(item, of=of) for item in value])
    if isinstance(value, Path):
        return _written("pathlib.Path", path=str(value))
    if isinstance(value, torch.dtype):
        return _written("torch.dtype", name=str(value).removeprefix("torch."))
    if isinstance(value, torch.device):
        return _written("torch.device", name=str(value))
    if type(value) is np.ndarray and value.dtype.kind in "biufU" and value.size <= _MOST:
        return _written("numpy.array", values=value.tolist(), dtype=value.dtype.str)
    if type(value) is torch.Tensor and value.numel() <= _MOST and not value.is_complex():
        dtype = str(value.dtype).removeprefix("torch.")
        return _written("torch.tensor", values=value.tolist(), dtype=dtype)
    if isinstance(value, _PLAIN) and type(value).__module__.startswith("jsonargparse"):
        # a number or word with a rule, of a parser: the rule is that of the parameter
        return next(kind(value) for kind in _PLAIN if isinstance(value, kind))
    raise _no_plain_form(value, of)


def _no_plain_form(value: Any, of: str) -> TypeError:
    what = f"{of}: " if of else ""
    kind = "a class" if isinstance(value, type) else f"a {type(value).__name__}"
    if callable(value):
        remedy = "name it by a string, or make a config dataclass that builds it"
    elif isinstance(value, np.ndarray | torch.Tensor):
        kind += f" of {tuple(value.shape)} {value.dtype}"
        remedy = f"numbers, {_MOST:,} at most, can; keep more in a file, or in a buffer"
    else:
        remedy = (
            "numbers, strings, lists, tuples, dicts, sets, enums, paths, dtypes, small arrays and "
            "dataclasses of them can; make it one of these"
        )
    return TypeError(f"{what}{kind} cannot be stored in a checkpoint; {remedy}")


def _written(kind: type | str, /, **init_args: Any) -> dict[str, Any]:
    path = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return {"class_path": path, "init_args": init_args}


def check_plain(plain: Any, *, of: str) -> None:
    """Read plain data back, and refuse what does not come back as it was.

    Args:
        plain: What :func:`to_plain` has made.
        of: Name of the setting, for the error.

    Raises:
        ValueError: For a class that is not found again, or a value that comes back as another.

    Example:
        >>> check_plain(to_plain({"widths": (8, float("nan"))}), of="sizes")
    """
    try:
        again = to_plain(from_plain(plain), of=of, exact=True)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{of} could not be read back from a checkpoint: {error}") from None
    different = _difference(plain, again, of)
    if different is not None:
        raise ValueError(
            f"{different} if it is read back from a checkpoint; let what makes it leave its "
            f"arguments as they are"
        )


def _difference(one: Any, two: Any, of: str) -> str | None:
    """Say where two plain values differ."""
    if type(one) is type(two) and isinstance(one, dict) and one.keys() == two.keys():
        inside = (
            "init_args" if one.keys() == _KEYS and one["class_path"] == two["class_path"] else ""
        )
        if inside:
            return _difference(one[inside], two[inside], of)
        found = (_difference(one[key], two[key], f"{of}.{key}") for key in one)
        return next((each for each in found if each is not None), None)
    if type(one) is type(two) and isinstance(one, list | tuple) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True))
        found = (_difference(a, b, f"{of}[{n}]") for n, (a, b) in pairs)
        return next((each for each in found if each is not None), None)
    if type(one) is type(two) and (one == two or (_is_nan(one) and _is_nan(two))):
        return None
    return f"{of}={one!r} becomes {two!r}"


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def from_plain(value: Any) -> Any:
    """Rebuild the configs inside plain data; everything else comes back as it is.

    Raises:
        ValueError: For a class whose module is not imported, or that is no config.

    Example:
        >>> from pile_lightning.nn import RopeConfig
        >>> from_plain(to_plain(RopeConfig(base=500.0))).base
        500.0
    """
    if isinstance(value, Mapping):
        if set(value) == _KEYS:
            init_args = {key: from_plain(item) for key, item in value["init_args"].items()}
            reader = _READERS.get(value["class_path"])
            return reader(init_args) if reader else _made(value["class_path"], init_args)
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(from_plain(item) for item in value)
    return value


def as_written(value: Any) -> Any:
    """Return plain data as a YAML file says it: names of enums and dtypes, lists for sets.

    Example:
        >>> as_written(to_plain({"kinds": {1}, "folder": Path("text")}))
        {'kinds': [1], 'folder': 'text'}
    """
    if isinstance(value, Mapping):
        if set(value) != _KEYS:
            return {key: as_written(item) for key, item in value.items()}
        path, init_args = value["class_path"], value["init_args"]
        if path in ("builtins.dict", "collections.OrderedDict"):
            return {key: as_written(item) for key, item in init_args["items"]}
        if path in _READERS:
            return as_written(next(iter(init_args.values())))
        kind = find_imported(path)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return init_args["name"]
        return {"class_path": path, "init_args": as_written(init_args)}
    if isinstance(value, list | tuple):
        return [as_written(item) for item in value]
    return value


def _made(class_path: str, init_args: dict[str, Any]) -> Any:
    kind = find_imported(class_path)
    if isinstance(kind, type):
        if issubclass(kind, Enum):
            return kind[init_args["name"]]
        if is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields")):
            return kind(**init_args)
    raise ValueError(not_imported(class_path, of="the checkpoint"))


def not_imported(class_path: str, *, of: str) -> str:
    """Return what to say of a class that :func:`find_imported` does not find, or that is no config.

    Args:
        class_path: Its module and name.
        of: What was made with it.
    """
    module = class_path.rpartition(".")[0]
    if "<locals>" in class_path:
        return (
            f"{class_path!r} is made inside a function, where nothing finds it; move it to the top "
            f"of a module"
        )
    if module == "__main__":
        return (
            f"{class_path!r} is a class of the program that made the checkpoint, and there is none "
            f"of that name in this one; move it to a module that both import"
        )
    if module not in sys.modules:
        return (
            f"{of} was made with {class_path!r}, and its module {module!r} is not imported; import "
            f"it before loading (which runs its code: do so only if you trust it)"
        )
    return (
        f"{of} was made with {class_path!r}, which is no config in {module!r}; use the version of "
        f"it that the checkpoint was made with"
    )


def find_imported(class_path: str) -> Any:
    """Return what lies there in a module that is imported already, or None; it imports none.

    Example:
        >>> find_imported("pathlib.Path"), find_imported("a.B")
        (<class 'pathlib.Path'>, None)
    """
    names = class_path.split(".")
    for end in range(len(names) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(names[:end]))
        if found is not None:
            for name in names[end:]:
                # not getattr: a module may import on being asked
                known = isinstance(found, type | ModuleType)
                found = vars(found).get(name) if known else None
            return found
    return None


def _dtype(name: str) -> torch.dtype:
    found = vars(torch).get(name)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"there is no torch.{name} in this version of torch")
    return found
