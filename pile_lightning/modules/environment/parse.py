"""From plain data to a member's class and settings, as strictly as from a config."""

import difflib
import importlib
import json
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pile_lightning.modules.base import LanguageModule
from pile_lightning.parser_words import concrete, field_names, no_class, shorten

__all__ = ["find_class", "of_checkpoint", "parse_settings"]

_OF_CHECKPOINT = ContextVar("of_checkpoint", default=False)

# the environment's own affair: they come from the data
FROM_DATA = ("vocab_size", "max_seq_len")


@contextmanager
def of_checkpoint() -> Iterator[None]:
    """Import nothing meanwhile: a checkpoint is data, and loading one runs no code."""
    token = _OF_CHECKPOINT.set(True)
    try:
        yield
    finally:
        _OF_CHECKPOINT.reset(token)


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
    module = sys.modules.get(module_name or "pile_lightning")
    if module is None and not _OF_CHECKPOINT.get():
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise ValueError(f"{of}: {class_path!r} cannot be imported ({error})") from None
    if module is None:
        raise ValueError(
            f"{of} was made with {class_path!r}, and {module_name!r} is not imported; import it "
            f"before loading (which runs its code: do so only if you trust it)"
        )
    kind = getattr(module, name, None)
    if kind is None:
        raise ValueError(f"{of}: {no_class(name, ours)}")
    if not (isinstance(kind, type) and issubclass(kind, LanguageModule)):
        raise ValueError(
            f"{of}: {class_path} is not derived from LanguageModule, whose loss the environment "
            f"knows how to share; derive it from pile_lightning.CausalLM"
        )
    return kind


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
    if _OF_CHECKPOINT.get():  # complete, and parsed once
        return dict(init_args)
    from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

    from pile_lightning.modules.fields import CONFIGS

    # the docstring under a field of a config is its help
    set_parsing_settings(docstring_parse_attribute_docstrings=True, subclasses_enabled=CONFIGS)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None, skip=set(FROM_DATA))
    arguments = [f"--{field}={_spell(value)}" for field, value in changes.items()]
    try:
        parsed: Namespace = parser.parse_object(dict(init_args))
        if arguments:
            parsed = parser.parse_args(arguments, namespace=parsed)
        made = parser.instantiate(parsed)
    except (ArgumentError, ValueError, TypeError) as error:
        kinds = concrete(CONFIGS)
        known = field_names([kind, *kinds])
        near = [f"{field}.{name}" for field in field_names([kind]) for name in known]
        raise ValueError(f"{of}: {_said(error, known + near, kinds)}") from None
    return {name: value for name, value in vars(made).items() if name not in FROM_DATA}


def _said(error: Exception, known: list[str], kinds: list[type]) -> str:
    message = getattr(error, "message", None) or str(error)
    return shorten(message, known, kinds)


def _spell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def nearest(name: str, known: list[str]) -> str:
    """Return a hint at the nearest of known names, or all of them.

    Example:
        >>> nearest("smal", ["small", "large"])
        "did you mean 'small'?"
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
