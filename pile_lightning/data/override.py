"""What a sub-class of ``TextData`` that yields its own documents is known by."""

import copy
import hashlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from pile_lightning.data.code_fingerprint import code_of_class
from pile_lightning.data.readers import Document, Skipped
from pile_lightning.data.sources import Source

__all__ = ["arguments_of_init", "fingerprint_of_class", "override_source"]


_OF_A_RUN = frozenset({"trainer", "_cursor", "_loader", "_lane_cursors"})
"""Attributes of a data module that a process which only reads its documents does not get."""


class _BringsDocuments(Protocol):
    max_record_bytes: int

    def documents(self) -> Iterator[Document | Skipped]: ...

    def data_fingerprint(self) -> str: ...


def override_source(data: _BringsDocuments) -> Source:
    """Return the documents of a data module as a source, of the one domain ``text``."""
    return _OverrideSource(data=data, name="text", max_record_bytes=data.max_record_bytes)


@dataclass(frozen=True, kw_only=True)
class _OverrideSource(Source):
    data: _BringsDocuments

    def documents(self) -> Iterator[Document | Skipped]:
        return iter(self.data.documents())

    def fingerprint(self) -> str:
        return self.data.data_fingerprint()

    def __getstate__(self) -> dict[str, Any]:
        data = copy.copy(self.data)
        data.__dict__.update(dict.fromkeys(_OF_A_RUN.intersection(data.__dict__)))
        return self.__dict__ | {"data": data}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def arguments_of_init(instance: object) -> dict[str, Any]:
    """Return the arguments of all ``__init__`` running on ``instance``, its sub-classes' too."""
    arguments: dict[str, Any] = {}
    frame = inspect.currentframe()
    frame = frame.f_back if frame else None
    while frame is not None and frame.f_code.co_name == "__init__":
        values = inspect.getargvalues(frame)
        if not values.args or values.locals[values.args[0]] is not instance:
            break
        code = frame.f_code
        names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        arguments |= {name: values.locals[name] for name in names}
        if values.keywords:
            arguments |= values.locals[values.keywords]
        frame = frame.f_back
    return arguments


def fingerprint_of_class(kind: type, arguments: dict[str, Any]) -> str:
    """Hash a class's name, its code and what that uses, and the arguments it was made with.

    What counts as its code says :func:`code_of_class`.

    Raises:
        TypeError: For an argument that has no lasting form.
    """
    code = code_of_class(kind)
    plain = {name: _plain(value, name, kind) for name, value in sorted(arguments.items())}
    listing = json.dumps([f"{kind.__module__}.{kind.__qualname__}", code, plain], sort_keys=True)
    return hashlib.sha256(listing.encode()).hexdigest()


def _plain(value: Any, name: str, kind: type) -> Any:
    if isinstance(value, Source):
        return value.fingerprint()
    if isinstance(value, dict):
        return {str(key): _plain(item, name, kind) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, name, kind) for item in value]
    form = repr(value)
    if " at 0x" in form:
        raise TypeError(
            f"argument {name}={form} of {kind.__qualname__} does not say whether the documents are "
            f"still the same; override data_fingerprint() to return what changes when they do"
        )
    return form
