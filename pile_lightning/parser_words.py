"""What a parser of settings says, in few words that name the nearest setting or class there is."""

import difflib
import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["concrete", "field_names", "no_class", "shorten"]


def shorten(message: str, known: Sequence[str], classes: Iterable[type] = ()) -> str:
    """Say what a parser's message says, with the nearest known name after one that is not.

    Args:
        message: The parser's.
        known: Names of settings.
        classes: Those that a setting may name.

    Example:
        >>> shorten("Option 'dmodel' is not accepted", ["d_model", "num_layers"])
        "'dmodel' is not a setting here; did you mean 'd_model'?"
    """
    unknown = re.search(r"Option '([^']+)' is not accepted", message)
    if unknown is None:
        unknown = re.search(r"unrecognized arguments: --(\S+)", message)
    if unknown is None:
        unknown = re.search(r"No action for key \"([^\"]+)\"", message)
    if unknown is None:
        return _tidy(message, classes)
    key = unknown.group(1).split("=")[0]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        last = key.rpartition(".")[2]
        near = difflib.get_close_matches(last, known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else "; --help lists those that there are"
    return f"{key!r} is not a setting here{hint}"


def _tidy(message: str, kinds: Iterable[type] = ()) -> str:
    r"""Drop a parser's own words from a message about a value.

    Example:
        >>> _tidy("Parser key \"d_model\":\n  Expected a <class 'int'>. Got value: abc")
        'd_model: expected int, got abc'
    """
    text = re.sub(r"\s*\n\s*", " ", message.strip())
    text = re.sub(r'Parser key "([^"]+)":', r"\1:", text)
    text = re.sub(r"Expected an? <class '([^']+)'>\. Got value:", r"expected \1, got", text)
    wrong = re.search(r"[Ii]mport path (\S+ )?does not correspond to a subclass of (\w+)", text)
    if wrong is not None:
        given = wrong.group(1) or text.rpartition(" value: ")[2]
        return f"{text.split(':')[0]}: {given.strip()} is not derived from {wrong.group(2)}"
    missing = re.search(r"(?:dot import path string: |has no attribute ')\"?(\w+)", text)
    if missing is None:
        return text
    return f"{text.split(':')[0]}: {no_class(missing.group(1), kinds)}"


def no_class(name: str, kinds: Iterable[type]) -> str:
    """Say that there is no class of a name, and which is near.

    Example:
        >>> no_class("CausalML", [int, float])
        "there is no class 'CausalML'; ours are float, int"
    """
    classes = sorted({kind.__name__ for kind in kinds})
    near = difflib.get_close_matches(name, classes, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"ours are {', '.join(classes)}"
    return f"there is no class {name!r}; {hint}"


def concrete(kinds: Iterable[Any]) -> list[Any]:
    """Return those of the classes and their sub-classes that can be made."""
    found = [each for kind in kinds for each in [kind, *concrete(kind.__subclasses__())]]
    return [each for each in found if not inspect.isabstract(each) and each.__name__[0] != "_"]


def field_names(kinds: Iterable[Any]) -> list[str]:
    """Return the names of all settings of classes."""
    names = {name for kind in kinds for name in inspect.signature(kind).parameters}
    return sorted(names - {"self", "args", "kwargs"})
