"""Files of one JSON object a line: plain, compressed, or a range of a large one.

``datasets`` gives up a whole block of a file at its first broken line; here only the line is lost.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Protocol

import orjson

from pile_lightning.data.lines import Cut, LongLine, count_lines, lines_of_range
from pile_lightning.data.listing import File
from pile_lightning.data.readers import (
    EMPTY,
    SURROGATE,
    WRONG_UTF8,
    Document,
    Fields,
    Skipped,
    too_large,
)

__all__ = ["LinePlaces", "Places", "read_range", "read_records"]


class Places(Protocol):
    """How the lines of a stream are called."""

    def document(self, number: int, offset: int) -> str:
        """Return the name of a document in line ``number`` (from 0) at byte ``offset``."""

    def skipped(self, number: int, offset: int) -> str:
        """Return where something else is."""


@dataclass(frozen=True)
class LinePlaces:
    """Path and line."""

    name: str

    def document(self, number: int, offset: int) -> str:
        """Return path and line."""
        return f"{self.name}:{number + 1}"

    def skipped(self, number: int, offset: int) -> str:
        """Return path and line."""
        return f"{self.name}:{number + 1}"


@dataclass(frozen=True)
class RangePlaces:
    """Names in a range of a file: bytes, but lines where a user has to look at one.

    The line's number costs a pass over the file up to the range, so only what is reported gets it.
    """

    file: File
    begin: int
    range_bytes: int
    first: int

    def document(self, number: int, offset: int) -> str:
        """Return path and byte."""
        return f"{self.file.name}, byte {self.first + offset}"

    def skipped(self, number: int, offset: int) -> str:
        """Return path and line where that can be known, else path and byte."""
        if not self.file.is_local:
            return self.document(number, offset)
        # by range, so that each is counted once
        before = sum(
            count_lines(self.file.path, self.file.stamp, begin, end)
            for begin in range(0, self.begin, self.range_bytes)
            for end in [min(begin + self.range_bytes, self.begin)]
        )
        before += self.first > self.begin  # the end of the line that begins before the range
        return f"{self.file.name}:{before + number + 1}"


def read_range(
    opened: BinaryIO,
    file: File,
    part: tuple[int, int],
    range_bytes: int,
    fields: Fields,
    start: int = 0,
) -> Iterator[Document | Skipped]:
    """Yield the records that begin in one of the ranges of ``range_bytes`` of a large file."""
    begin, end = part
    first, lines = lines_of_range(opened, begin, end, fields.max_record_bytes)
    yield from read_records(lines, RangePlaces(file, begin, range_bytes, first), fields, start)


def read_records(
    lines: Iterable[bytes | LongLine | Cut], places: Places, fields: Fields, start: int = 0
) -> Iterator[Document | Skipped]:
    r"""Yield the text of each line's JSON object; blank lines are none, and are not counted.

    Args:
        lines: Without their ends.
        places: Names the lines.
        fields: Says which fields of an object are read.
        start: How many items to leave out; their lines are not parsed.

    Example:
        >>> lines = [b'{"text": "one"}', b"", b'{"text": "tw', b'{"text": "three"}']
        >>> for item in read_records(lines, LinePlaces("a.jsonl"), Fields()):
        ...     print(item)
        Document(text='one', name='a.jsonl:1', domain=None)
        Skipped(reason='broken JSON', name='a.jsonl:3')
        Document(text='three', name='a.jsonl:4', domain=None)
    """
    offset = 0
    for number, line in enumerate(lines):
        if isinstance(line, Cut):
            items = list(_cut_record(line, places, number, offset, fields))
            yield from islice(items, start, None)
            start = max(0, start - len(items))
            continue
        at = offset
        offset += (line.num_bytes if isinstance(line, LongLine) else len(line)) + 1
        if not line or (isinstance(line, bytes) and line.isspace()):
            continue
        if start:
            start -= 1
            continue
        if isinstance(line, LongLine):
            yield Skipped(too_large(fields.max_record_bytes), places.skipped(number, at))
            continue
        item = _item(line, places.document(number, at), fields)
        if isinstance(item, Skipped):
            item = _item(line, places.skipped(number, at), fields)
        yield item


def _cut_record(
    cut: Cut, places: Places, number: int, offset: int, fields: Fields
) -> Iterator[Document | Skipped]:
    # an object that can be parsed is whole: only what came behind it is missing
    item = _item(cut.rest, places.document(number, offset), fields)
    if isinstance(item, Document):
        yield item
    yield Skipped(cut.reason, places.skipped(number, offset))


def _item(line: bytes, name: str, fields: Fields) -> Document | Skipped:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _read_slowly(line, name, fields)
    return fields.item(record, name)


def _read_slowly(line: bytes, name: str, fields: Fields) -> Document | Skipped:
    """Say what is wrong with a line, or read it nevertheless.

    The standard library also takes what orjson does not: NaN, and lone surrogates in other fields.
    """
    try:
        text = line.decode("utf-8-sig")  # files that were joined have marks in their middle
        if not text:
            return Skipped(EMPTY, name)
        record = json.loads(text)
    except UnicodeDecodeError:
        return Skipped(WRONG_UTF8, name)
    except (ValueError, RecursionError):
        # text has no such character, which JSON writes as \r
        ends = "broken JSON, lines end in CR alone" if "\r" in text.strip() else "broken JSON"
        return Skipped(ends, name)
    item = fields.item(record, name)
    if isinstance(item, Document):
        try:
            f"{item.text}{item.domain}".encode()
        except UnicodeEncodeError:
            return Skipped(SURROGATE, name)
    return item
