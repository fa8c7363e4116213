"""What reading gives: documents, and what is none, with the reason and the place.

Here is also how a record, whatever format it was read from, becomes one of the two.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = [
    "EMPTY",
    "MAX_RECORD_BYTES",
    "SURROGATE",
    "WRONG_UTF8",
    "Document",
    "Fields",
    "MissingField",
    "Skipped",
    "too_large",
]


EMPTY = "empty text"
"""Reason of a document without text, or of a null: counted, but nothing to warn a user of."""

WRONG_UTF8 = "wrong UTF-8"
"""Reason of bytes that are no text."""

SURROGATE = "a lone surrogate"
"""Reason of text that cannot be written as UTF-8; JSON can hold it, as ``"\\ud800"``."""

MAX_RECORD_BYTES = 128_000_000
"""Bytes of the largest record where nothing else is set."""

_ABSENT = object()


def too_large(max_record_bytes: int) -> str:
    """Return the reason of a record that is larger than allowed."""
    return f"a record of more than max_record_bytes={max_record_bytes:,}"


class Document(NamedTuple):
    """One text, whole."""

    text: str
    """The text as it is in the source."""
    name: str
    """Where it came from: a path, or a path and a line, row or byte."""
    domain: str | None = None
    """The domain that the record itself names; None where it is that of the source."""


class Skipped(NamedTuple):
    """What a source found where it expected a document."""

    reason: str
    """Why it is no document; equal reasons are counted together."""
    name: str
    """Where it was found."""


class MissingField(Skipped):
    """A record without a field that was asked for; its keys tell which to ask for instead.

    Example:
        >>> MissingField("no field 'text'", "a.jsonl:1", ("content", "id"))
        MissingField(reason="no field 'text'", name='a.jsonl:1')
    """

    keys: tuple[str, ...]
    """The keys that the record has."""

    def __new__(cls, reason: str, name: str, keys: tuple[str, ...] = ()) -> "MissingField":
        """Make a ``Skipped`` that equals any other of its reason and place."""
        made = super().__new__(cls, reason, name)
        made.keys = keys
        return made


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Which fields of a record are its text and its domain; ``meta.name`` is ``name`` in ``meta``.

    Example:
        >>> fields = Fields(domain_key="meta.pile_set_name")
        >>> record = {"text": "A text.", "meta": {"pile_set_name": "ArXiv"}}
        >>> fields.item(record, "a.jsonl:1")
        Document(text='A text.', name='a.jsonl:1', domain='ArXiv')
        >>> fields.item({"text": 5}, "a.jsonl:2").reason
        "field 'text' is not a string"
    """

    text_key: str = "text"
    """Field of the text."""
    domain_key: str | None = None
    """Field that names the domain; None where records do not."""
    max_record_bytes: int = MAX_RECORD_BYTES
    """Bytes of the largest line, row or document; what is larger is not held in memory."""

    def item(self, record: Any, name: str) -> Document | Skipped:
        """Return the document that a record holds, or why it holds none."""
        if not isinstance(record, dict):
            return Skipped("not a JSON object", name)
        text = _look_up(record, self.text_key)
        if text is _ABSENT:
            return MissingField(f"no field {self.text_key!r}", name, tuple(record))
        if text is None:
            return Skipped(EMPTY, name)
        if isinstance(text, bytes):  # as some parquet files have it
            try:
                text = text.decode()
            except UnicodeDecodeError:
                return Skipped(WRONG_UTF8, name)
        if not isinstance(text, str):
            return Skipped(f"field {self.text_key!r} is not a string", name)
        if not text:
            return Skipped(EMPTY, name)
        if self.domain_key is None:
            return Document(text, name)
        domain = _look_up(record, self.domain_key)
        if domain is _ABSENT:
            return MissingField(f"no field {self.domain_key!r}", name, tuple(record))
        if isinstance(domain, bool) or not isinstance(domain, str | int) or domain == "":
            return Skipped(f"field {self.domain_key!r} names no domain", name)
        return Document(text, name, str(domain))


def _look_up(record: dict[str, Any], key: str) -> Any:
    # a field that is called "meta.name" itself comes first
    value = record.get(key, _ABSENT)
    if value is not _ABSENT or "." not in key:
        return value
    value = record
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return _ABSENT
        value = value[part]
    return value
