"""A hash of the code that decides what a user's own documents are."""

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

__all__ = ["code_of_class"]

_PACKAGE = __name__.partition(".")[0]
_INSTALLED = tuple(
    str(Path(path).resolve())
    for name, path in sysconfig.get_paths().items()
    if name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_LONGEST = 10_000


def code_of_class(kind: type) -> str:
    """Hash the source of a class, of its bases, and of what they use by name.

    That is: functions, classes and plain constants (numbers, strings, and tuples, lists, sets and
    dicts of them) of the user's own modules, at any depth. Not: installed packages, the standard
    library, this package, objects of other kinds, and files that are read.
    """
    seen: dict[str, str] = {}
    for base in kind.__mro__:
        _add(base, seen)
    listing = "\n".join(f"{name} {source}" for name, source in sorted(seen.items()))
    return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()


def _add(value: Any, seen: dict[str, str]) -> None:
    """Add the source of a class or function, and of all that it uses."""
    value = inspect.unwrap(value) if callable(value) else value
    if isinstance(value, MethodType):
        value = value.__func__
    if not isinstance(value, FunctionType | type) or not _is_users(value):
        return
    name = f"{value.__module__}.{value.__qualname__}"
    if name in seen:
        return
    seen[name] = _source(value)
    if isinstance(value, type):
        for base in value.__mro__[1:]:
            _add(base, seen)
        functions = [_function(each) for each in vars(value).values()]
    else:
        functions = [value]
    for function in functions:
        if function is not None:
            _add_used(function, seen)


def _add_used(function: FunctionType, seen: dict[str, str]) -> None:
    """Add what a function uses by name: globals, and what it closes over."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    used = {name: function.__globals__[name] for name in names if name in function.__globals__}
    used |= {
        name: cell.cell_contents
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        )
        if _is_filled(cell)
    }
    for name, value in used.items():
        if isinstance(value, ModuleType):
            _add_from_module(value, names, seen)
        elif _is_plain(value):
            seen[f"{function.__module__}:{name}"] = _written(value)[:_LONGEST]
        else:
            _add(value, seen)


def _add_from_module(module: ModuleType, names: set[str], seen: dict[str, str]) -> None:
    """Add what is used of a module of the user's own: ``helpers.clean``."""
    if not _is_users(module):
        return
    for name in names & vars(module).keys():
        value = vars(module)[name]
        if _is_plain(value):
            seen[f"{module.__name__}:{name}"] = _written(value)[:_LONGEST]
        else:
            _add(value, seen)


def _is_users(value: Any) -> bool:
    """Return whether a class, function or module is the user's own."""
    name = value.__name__ if isinstance(value, ModuleType) else value.__module__
    if name is None or name.partition(".")[0] in (_PACKAGE, "builtins"):
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:  # typed into an interpreter, or built in
        return name == "__main__"
    return not str(Path(file).resolve()).startswith(_INSTALLED)


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):  # typed into an interpreter
        function = _function(value)
        if function is not None:
            return function.__code__.co_code.hex()
        return ",".join(sorted(vars(value))) if isinstance(value, type) else ""


def _function(value: Any) -> FunctionType | None:
    """Return the function that an attribute of a class is made of, if it is."""
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)
    value = inspect.unwrap(value) if callable(value) else value
    return value if isinstance(value, FunctionType) else None


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and those of functions and comprehensions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # not yet assigned
        return False


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)


def _written(value: Any) -> str:
    """Write a constant, the same in each process: sets have no order of their own."""
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(_written(item) for item in value))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_written(k)}: {_written(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(_written, value))})"
    return repr(value)
