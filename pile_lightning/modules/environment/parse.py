"""From plain data to a member's class and settings, as strictly as from a config."""

import copy
import difflib
import importlib
import json
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, cast

from pile_lightning.checkpoint_settings import (
    check_checkpoint_settings,
    is_reading_checkpoint,
)
from pile_lightning.config import as_written, find_imported, from_plain, not_imported
from pile_lightning.modules.base import LanguageModule
from pile_lightning.parser_words import concrete, field_names, no_class, shorten

__all__ = ["FROM_DATA", "check_member", "find_class", "nearest", "parse_settings"]

FROM_DATA = ("vocab_size", "max_seq_len")
"""Settings of every member that are the data's to say."""


def find_class(class_path: str, *, of: str) -> type[LanguageModule]:
    """Return the class of a member.

    Args:
        class_path: Its module and name; ours by their name alone.
        of: What to call the member in an error.

    Raises:
        ValueError: Where there is no such class, or it is none of a language module.
    """
    module_name, _, name = class_path.rpartition(".")
    ours = concrete([LanguageModule])
    if module_name in ("", "pile_lightning"):
        kind = getattr(sys.modules["pile_lightning"], name, None)
    elif is_reading_checkpoint():
        kind = find_imported(class_path)
        if kind is None:
            raise ValueError(not_imported(class_path, of=of))
    else:
        kind = getattr(_imported(class_path, of=of), name, None)
    if kind is None:
        raise ValueError(f"{of}: {no_class(name, ours)}")
    if not (isinstance(kind, type) and issubclass(kind, LanguageModule)):
        raise ValueError(
            f"{of}: {class_path} is not derived from LanguageModule, whose loss the environment "
            f"knows how to share; derive it from pile_lightning.CausalLM"
        )
    return kind


def _imported(class_path: str, *, of: str) -> ModuleType:
    try:
        return importlib.import_module(class_path.rpartition(".")[0])
    except ImportError as error:
        raise ValueError(f"{of}: {class_path!r} cannot be imported ({error})") from None


def parse_settings(
    kind: type[LanguageModule],
    init_args: Mapping[str, Any],
    changes: Mapping[str, Any],
    *,
    of: str,
) -> dict[str, Any]:
    """Return the settings of a member as its class takes them: numbers, strings, configs.

    Args:
        kind: The class.
        init_args: Plain data, as below ``init_args`` in a YAML file.
        changes: Values by dotted field, such as ``optimizer.lr``, on top of them.
        of: What to call the member in an error.

    Raises:
        ValueError: For a field that does not exist, or a value that it cannot take.
    """
    if is_reading_checkpoint():  # complete, and parsed once
        return dict(from_plain(check_checkpoint_settings(kind, init_args, of=of)))
    init_args = as_written(init_args)
    arguments = tuple(_arguments(changes))
    of_class = any(isinstance(value, str | Mapping) for value in changes.values())
    try:
        if of_class:
            # at once: a class that takes another's place gets what was set, and no defaults
            arguments, init_args = (*_arguments(init_args), *arguments), {}
        made = _parsed(cast(Any, kind), json.dumps(init_args), arguments, at_once=of_class)
    except (ArgumentError, ValueError, TypeError) as error:
        raise ValueError(f"{of}: {_said(error, kind)}") from None
    return {name: value for name, value in copy.deepcopy(made).items() if name not in FROM_DATA}


# the members of a sweep share most of what is to be parsed, which takes 0.1 s a time, and settings
# are looked at before there is data and after it
@lru_cache(maxsize=256)
def _parsed(
    kind: Any, init_args: str, arguments: tuple[str, ...], *, at_once: bool
) -> dict[str, Any]:
    parser = _parser(kind)
    parsed = None if at_once else _base(kind, init_args)
    if arguments:
        parsed = parser.parse_args(list(arguments), namespace=parsed and parsed.clone())
    return dict(vars(parser.instantiate(parsed)))


def _arguments(settings: Mapping[str, Any]) -> Iterator[str]:
    return (f"--{field}={_spell(value)}" for field, value in settings.items())


@lru_cache(maxsize=32)
def _base(kind: Any, init_args: str) -> Any:
    return _parser(kind).parse_object(json.loads(init_args))


@lru_cache(maxsize=32)
def _parser(kind: Any) -> Any:
    # not with the module: importing the package should cost nothing beyond lightning
    from jsonargparse import set_parsing_settings

    from pile_lightning.lean_defaults import LeanDefaults
    from pile_lightning.modules.fields import CONFIGS

    set_parsing_settings(subclasses_enabled=CONFIGS)
    parser = LeanDefaults(exit_on_error=False)
    parser.add_class_arguments(kind, None, skip=set(FROM_DATA))
    return parser


def _said(error: Exception, kind: type[LanguageModule]) -> str:
    from pile_lightning.modules.fields import CONFIGS

    kinds = concrete(CONFIGS)
    names, below = field_names([kind]), field_names(kinds)
    known = [*names, *below, *(f"{name}.{field}" for name in names for field in below)]
    return shorten(getattr(error, "message", None) or str(error), known, kinds)


def _spell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def check_member(name: str, names: list[str], *, of: str) -> None:
    """Refuse the name of a member that there is not.

    Args:
        name: It.
        names: Of those that there are.
        of: Who names it, in the error.

    Raises:
        ValueError: Where it is none of them.
    """
    if name not in names:
        raise ValueError(
            f"{of} names {name!r}, and there is no such member; {nearest(name, names)}"
        )


def nearest(name: str, known: list[str]) -> str:
    """Return a hint at the nearest of known names, or all of them.

    Example:
        >>> nearest("smal", ["small", "large"])
        "did you mean 'small'?"
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
