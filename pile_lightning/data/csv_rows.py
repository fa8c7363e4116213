"""Tables of text, CSV and TSV: a document a row, below a header; a broken row costs itself."""

import csv
import re
from collections.abc import Iterator
from dataclasses import replace

from pile_lightning.data.lines import Cut, LongLine
from pile_lightning.data.readers import (
    WRONG_UTF8,
    Document,
    Fields,
    MissingField,
    Skipped,
    too_large,
)

__all__ = ["read_rows"]

_DELIMITERS = ",;\t|"


class _Feed:
    """Hands lines to a parser, with their ends, until one is cut."""

    def __init__(self, lines: Iterator[bytes | LongLine | Cut], max_bytes: int) -> None:
        self.lines = lines
        self.max_bytes = max_bytes
        self.number = 0
        """Of the line that was handed out last, from 1."""
        self.waiting: list[str] = []
        self.cut: Cut | None = None
        """What ended it."""

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        if not self.waiting:
            line = None if self.cut else next(self.lines, None)
            if isinstance(line, LongLine):
                line = Cut(too_large(self.max_bytes))
            if line is None or isinstance(line, Cut):
                self.cut = line or self.cut
                raise StopIteration
            text = (line + b"\n").decode("utf-8", "surrogateescape")
            if self.number == 0:
                text = text.removeprefix("\ufeff")
            # a carriage return alone ends a line too, though not in quotes: so ends are kept
            self.waiting = re.split(r"(?<=\r)(?!\n)", text)[::-1]
        self.number += 1
        return self.waiting.pop()


def read_rows(
    lines: Iterator[bytes | LongLine | Cut], name: str, fields: Fields, delimiter: str | None = None
) -> Iterator[Document | Skipped]:
    r"""Yield the text of each row, named by the line in which the row begins.

    Args:
        lines: Of the file, without their ends.
        name: Of the file.
        fields: Says which columns are read; where there is one column alone, it is the text.
        delimiter: What is between two fields; None: the most frequent one of the header.

    Example:
        >>> lines = [b"id,text", b'1,"two', b'lines"', b"2,one"]
        >>> for item in read_rows(iter(lines), "a.csv", Fields()):
        ...     print(item)
        Document(text='two\nlines', name='a.csv:2', domain=None)
        Document(text='one', name='a.csv:4', domain=None)
    """
    feed = _Feed(lines, fields.max_record_bytes)
    header: list[str] | None = None
    # a quote that is never closed takes the rest of the file
    csv.field_size_limit(fields.max_record_bytes)
    rows = None
    while True:
        if rows is None:
            first = next(feed, None)
            if first is not None:
                delimiter = delimiter or _delimiter_of(first)
                feed.waiting.append(first)
                feed.number -= 1
                rows = csv.reader(feed, delimiter=delimiter, strict=True)
        place = f"{name}:{feed.number + 1}"
        try:
            row = next(rows) if rows is not None else None
        except StopIteration:
            row = None
        except csv.Error as error:
            yield Skipped(_reason(error, fields.max_record_bytes), place)
            row = []
        if row is None:
            if feed.cut is None:
                return
            yield Skipped(feed.cut.reason, f"{name}:{feed.number + 1}")
            feed.cut, rows = None, None
        elif row and header is None:
            header = row
            fields, missing = _columns(fields, header)
            if missing is not None:
                yield MissingField(missing, name, tuple(header))
                return
        elif row and header is not None:
            yield _item(row, header, fields, place)


def _columns(fields: Fields, header: list[str]) -> tuple[Fields, str | None]:
    """Return which columns to read, and which is missing."""
    if fields.text_key not in header and len(header) == 1:
        fields = replace(fields, text_key=header[0])
    for key in (fields.text_key, fields.domain_key):
        if key is not None and key not in header:
            return fields, f"no field {key!r}"
    return fields, None


def _item(row: list[str], header: list[str], fields: Fields, place: str) -> Document | Skipped:
    if len(row) != len(header):
        return Skipped("not as many fields as the header", place)
    item = fields.item(dict(zip(header, row, strict=True)), place)
    if isinstance(item, Document):
        try:
            f"{item.text}{item.domain}".encode()
        except UnicodeEncodeError:
            return Skipped(WRONG_UTF8, place)
    return item


def _delimiter_of(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _reason(error: csv.Error, max_bytes: int) -> str:
    if "unexpected end" in str(error):
        return "a quote that is never closed"
    return too_large(max_bytes) if "limit" in str(error) else "broken CSV"
