"""The settings in a checkpoint, read as data: they name classes, and none is imported for it.

What a checkpoint says may end in a config file, which is parsed like one that a user wrote: there a
class, or a string in the place of one, is imported. So a checkpoint's classes must be imported
already, and its strings must stand where only strings can.
"""

import contextlib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pile_lightning.config import find_imported, from_plain, not_imported

__all__ = [
    "SET_BY_CLASS",
    "arguments_of",
    "check_checkpoint_settings",
    "hyper_parameters",
    "is_reading_checkpoint",
    "reading_checkpoint",
]

SET_BY_CLASS = "set_by_class"
"""Hyper-parameter that names those which the class decides itself."""

_READING = ContextVar("reading_checkpoint", default=False)
_CONFIG = {"class_path", "init_args"}
_TEXT = (str, Path, type(None))
_ANYTHING = (Any, object, inspect.Parameter.empty)


@contextmanager
def reading_checkpoint() -> Iterator[None]:
    """Import nothing meanwhile, and fetch nothing: a checkpoint is data."""
    token = _READING.set(True)
    try:
        yield
    finally:
        _READING.reset(token)


def is_reading_checkpoint() -> bool:
    """Return whether what is made now is made of a checkpoint's settings."""
    return _READING.get()


def hyper_parameters(checkpoint: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    """Return the settings in a checkpoint, without those that say how to make an object.

    Lightning keeps ``_instantiator`` and ``_class_path`` among them, which would be called.

    Args:
        checkpoint: The checkpoint.
        name: What to call it in an error.

    Raises:
        ValueError: Where they are no settings.
    """
    found = checkpoint.get("hyper_parameters", {})
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{name} holds no settings by name; take another checkpoint")
    return {key: value for key, value in arguments_of(found).items() if not key.startswith("_")}


def arguments_of(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return those hyper-parameters that the constructor takes.

    Example:
        >>> arguments_of({"width": 16, "network": {}, "set_by_class": ["network"]})
        {'width': 16}
    """
    own = hparams.get(SET_BY_CLASS, ())
    left_out = {SET_BY_CLASS, *(own if isinstance(own, list | tuple) else ())}
    return {name: value for name, value in hparams.items() if name not in left_out}


def check_checkpoint_settings(
    kind: Callable[..., Any], settings: Mapping[str, Any], *, of: str
) -> dict[str, Any]:
    """Return settings of a checkpoint for a class, after making sure that they import nothing.

    Args:
        kind: The class.
        settings: Its arguments by name, as plain data.
        of: What they are of, for an error.

    Raises:
        ValueError: For a config of a class that is not imported, or of none, and for a string in
            the place of something else.

    Example:
        >>> check_checkpoint_settings(Path, {"network": {"class_path": "a.B"}}, of="last.ckpt")
        Traceback (most recent call last):
        ValueError: last.ckpt: network is {'class_path': 'a.B'}, which is no config; ...
    """
    try:
        hints = _hints(kind)
        for name, value in settings.items():
            _check(value, hints.get(name, Any), f"{of}: {name}")
            from_plain(value)
    except RecursionError:
        raise ValueError(f"{of} is nested too deeply; take another checkpoint") from None
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{of} does not fit the configs of this program ({error}); load it with the version "
            f"that made it"
        ) from None
    return dict(settings)


def _hints(kind: Callable[..., Any]) -> dict[str, Any]:
    """Return what the arguments of a class may be, also those that it hands on to its bases."""
    found: dict[str, Any] = {}
    for base in reversed(inspect.getmro(kind) if isinstance(kind, type) else ()):
        init = vars(base).get("__init__")
        if inspect.isfunction(init):
            # of what has no annotation, and where names are those that only a type checker knows
            found |= dict.fromkeys(inspect.signature(init).parameters, Any)
            with contextlib.suppress(NameError):
                found |= typing.get_type_hints(init)
    return found


def _check(value: Any, hint: Any, of: str) -> None:
    """Refuse what a parser of configs could take for the name of something to import."""
    arms = _arms(hint)
    if isinstance(value, str):
        if not _is_text(value, arms):
            raise ValueError(
                f"{of} is {_short(value)}, where no such text can stand; take another checkpoint"
            )
    elif isinstance(value, Mapping):
        if "class_path" in value:
            _check_config(value, of)
            return
        for arm in arms:  # a config by its fields alone
            hints = _hints(arm) if isinstance(arm, type) and is_dataclass(arm) else {}
            if hints and value.keys() <= hints.keys():
                for key, item in value.items():
                    _check(item, hints[key], f"{of}.{key}")
                return
        _check_fits(value, arms, Mapping, of)
        inner = _inner(arms, Mapping, -1)
        for key, item in value.items():
            _check(item, inner, f"{of}.{key}")
    elif isinstance(value, Collection):
        _check_fits(value, arms, Collection, of)
        for item in value:
            _check(item, _inner(arms, Collection, 0), of)


def _check_config(value: Mapping[str, Any], of: str) -> None:
    path, init_args = value["class_path"], value.get("init_args")
    if set(value) != _CONFIG or not isinstance(path, str) or not isinstance(init_args, Mapping):
        raise ValueError(f"{of} is {_short(value)}, which is no config; take another checkpoint")
    kind = find_imported(path)
    if kind is None:
        raise ValueError(not_imported(path, of=of))
    hints = _hints(kind) if isinstance(kind, type) and is_dataclass(kind) else {}
    for name, item in init_args.items():
        _check(item, hints.get(name, Any), f"{of}.{name}")


def _arms(hint: Any) -> list[Any]:
    """Return the types of a union, or the only one."""
    if hasattr(hint, "__value__"):  # of a `type` statement
        return _arms(hint.__value__)
    if get_origin(hint) in (Union, types.UnionType):
        return [arm for each in get_args(hint) for arm in _arms(each)]
    if get_origin(hint) is typing.Annotated:
        return _arms(get_args(hint)[0])
    return [hint]


def _is_text(value: str, arms: Sequence[Any]) -> bool:
    if any(get_origin(arm) is Literal and value in get_args(arm) for arm in arms):
        return True
    if any(isinstance(arm, type) and issubclass(arm, Enum) for arm in arms):
        return value.isidentifier()
    if not any(arm in (*_TEXT[:2], *_ANYTHING) for arm in arms):
        return False
    if all(arm in _TEXT for arm in arms):
        return True
    # a parser may read it as YAML, and what it reads as a class
    is_data = not any(sign in value for sign in ("{", "\n", ": "))
    return is_data and (all(arm in (*_TEXT, *_ANYTHING) for arm in arms) or "." not in value)


def _check_fits(value: Any, arms: Sequence[Any], kind: type, of: str) -> None:
    if not any(arm in _ANYTHING or _holds(arm, kind) for arm in arms):
        raise ValueError(
            f"{of} is {_short(value)}, where no such value can stand; take another checkpoint"
        )


def _holds(arm: Any, kind: type) -> bool:
    """Return whether a type is one of Python's own lists or mappings."""
    origin = get_origin(arm) or arm
    return (
        isinstance(origin, type)
        and origin.__module__ in ("builtins", "collections", "collections.abc")
        and origin is not str
        and issubclass(origin, kind)
    )


def _inner(arms: Sequence[Any], kind: type, place: int) -> Any:
    """Return what the items of a list or mapping may be."""
    inner: list[Any] = []
    for arm in arms:
        if _holds(arm, kind):
            items = [each for each in get_args(arm) if each is not ...]
            inner += items if get_origin(arm) is tuple else items[place:][:1]
    return Union[tuple(inner)] if inner else Any  # noqa: UP007


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 120 else f"{said[:120]}..."
