"""One file at a time: its documents, and what in it is none, with the reason and the place."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["EMPTY", "Document", "FieldCheck", "Skipped", "read_records", "read_text"]

EMPTY = "empty text"
"""Reason of a document without any text: counted, but nothing that a user has to be warned of."""

_RECORDS_BEFORE_JUDGING = 1000


class Document(NamedTuple):
    """One text, whole."""

    text: str
    """The text as it is in the source."""
    name: str
    """Where it came from: a path, or a path and a line."""


class Skipped(NamedTuple):
    """What a source found where it expected a document."""

    reason: str
    """Why it is no document; equal reasons are counted together."""
    name: str
    """Where it was found."""


class FieldCheck:
    """Notices records that mostly lack the text field: then its name is wrong, not the data."""

    def __init__(self, text_key: str) -> None:
        self.text_key = text_key
        self.records = self.missing = 0
        self.keys: Counter[str] = Counter()

    def add(self, record: dict[str, Any]) -> None:
        """Count a record, and judge after the first thousand."""
        self.records += 1
        if self.text_key not in record:
            self.missing += 1
            self.keys.update(record.keys())
        if self.records == _RECORDS_BEFORE_JUDGING:
            self.judge()

    def judge(self) -> None:
        """Raise ValueError, with the keys seen, where most records lack the field."""
        if 2 * self.missing > self.records:
            keys = ", ".join(repr(key) for key, _ in self.keys.most_common(10))
            raise ValueError(
                f"{self.missing} of {self.records} records have no field {self.text_key!r}; "
                f"they have {keys or 'no fields'}: set text_key to the one that holds the text"
            )


def read_text(file: Path, name: str) -> Iterator[Document | Skipped]:
    """Yield a whole file as one document."""
    try:
        # bytes, not text mode: line ends stay as they are
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Skipped("wrong UTF-8", f"{name}, byte {error.start}")
    else:
        yield Document(text, name) if text else Skipped(EMPTY, name)


def read_records(file: Path, name: str, fields: FieldCheck) -> Iterator[Document | Skipped]:
    """Yield the text of each line's JSON object."""
    with file.open("rb") as lines:
        # split on line feeds only: U+2028 and its kind are text
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _read_record(line, f"{name}:{number}", fields)


def _read_record(line: bytes, name: str, fields: FieldCheck) -> Document | Skipped:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Skipped("wrong UTF-8", name)
    except ValueError:
        return Skipped("broken JSON", name)
    if not isinstance(record, dict):
        return Skipped("not a JSON object", name)
    fields.add(record)
    if fields.text_key not in record:
        return Skipped(f"no field {fields.text_key!r}", name)
    text = record[fields.text_key]
    if not isinstance(text, str):
        return Skipped(f"field {fields.text_key!r} is not a string", name)
    return Document(text, name) if text else Skipped(EMPTY, name)
