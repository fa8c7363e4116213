"""Formats of files: which one a file has, how it is cut into parts, and reading a part."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from pile_lightning.data.compression import CODECS, Codec, Damage, decompress
from pile_lightning.data.csv_rows import read_rows
from pile_lightning.data.file import File, suffixes_of
from pile_lightning.data.jsonl import LinePlaces, read_range, read_records
from pile_lightning.data.lines import split_lines
from pile_lightning.data.parquet import ranges_of_groups, read_groups
from pile_lightning.data.readers import EMPTY, WRONG_UTF8, Document, Fields, Skipped, too_large
from pile_lightning.data.source import Shard
from pile_lightning.data.utf16 import as_utf8, is_utf16

__all__ = ["FORMATS", "FileShard", "Format", "cut", "divide", "format_of", "read"]

RANGE_BYTES = 64 << 20
"""About how large the parts of a large file are."""

FORMATS = ("text", "jsonl", "csv", "parquet")
"""What a file can be: one document, one a line, or one a row."""

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
# errors of one file alone; what troubles a whole disk or net ends the reading
_SKIPPED_ERRORS = {
    errno.ENOENT: "vanished before it was read",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EISDIR: "a folder",
    errno.ELOOP: "links that lead to each other",
}
_PACKED = (".bz2", ".xz", ".lz4", ".zip", ".tar", ".tgz", ".7z", ".rar", ".br")
# how much longer text is than the file that holds it, roughly
_EXPANSION = {"gzip": 3, "zstd": 3, "parquet": 2}


class Format(NamedTuple):
    """What a file is."""

    kind: str
    """One of ``FORMATS``."""
    codec: Codec | None
    """How it is compressed."""


@dataclass(frozen=True, kw_only=True)
class FileShard(Shard):
    """A file, or a range of its bytes (jsonl) or row groups (parquet)."""

    file: File
    """Where it is now."""
    format: Format
    """What it is."""
    part: tuple[int, int] | None = None
    """First byte or row group, and the one behind the last; None for the whole file."""


def format_of(file: File, kind: str | None = None) -> Format:
    """Return what a file is, by its suffixes, or by ``kind`` and a suffix of compression.

    Raises:
        ValueError: Where that cannot be read, or cannot be told.
    """
    suffixes = suffixes_of(file.name if file.is_local else file.name.partition("?")[0])
    codec = CODECS.get(suffixes[-1]) if suffixes else None
    suffix = "".join(suffixes[-2:-1] if codec else suffixes[-1:])
    if suffix in _PACKED:
        raise ValueError(
            f"{file.path} is packed as {suffix}, which is not read; unpack it, or compress its "
            f"text as .zst or .gz"
        )
    if kind is None and suffix == ".json":
        raise ValueError(
            f"{file.path} may hold one record a line or be one text; set format='jsonl' or "
            f"format='text', or leave it out"
        )
    kind = kind or _SUFFIXES.get(suffix, "text")
    if kind == "parquet" and codec is not None:
        raise ValueError(
            f"{file.path} is parquet within {codec.name}; decompress it: parquet is compressed "
            f"inside"
        )
    return Format(kind, codec)


def cut(file: File, kind: str | None, options: str) -> list[FileShard]:
    """Return the parts that a file is read in.

    Args:
        file: Not opened, but for the footer of a large parquet file on a disk.
        kind: One of ``FORMATS``; None: by suffix.
        options: What else decides what a part gives; becomes part of its identity.
    """
    form = Format("text", None) if file.problem else format_of(file, kind)
    identity = f"{file.stamp} {options}"
    size = file.size
    expansion = _EXPANSION.get(form.codec.name if form.codec else form.kind, 1)
    whole = FileShard(
        name=file.name,
        num_bytes=None if size is None else size * expansion,
        identity=identity,
        file=file,
        format=form,
    )
    if size is None or size <= RANGE_BYTES:
        return [whole]
    if form.kind == "parquet" and file.is_local:
        with file.open() as opened:
            parts = ranges_of_groups(opened, RANGE_BYTES)
        return [_part(whole, *part) for part in parts] if len(parts) > 1 else [whole]
    return divide(whole, RANGE_BYTES)


def divide(shard: FileShard, num_bytes: int) -> list[FileShard]:
    """Return ranges of ``num_bytes`` of a shard of plain jsonl, any other shard as it is."""
    file, form = shard.file, shard.format
    if form.kind != "jsonl" or form.codec is not None or not file.can_seek:
        return [shard]
    first, last = shard.part or (0, file.size or 0)
    if last - first <= num_bytes or is_utf16(file):
        return [shard]
    ends = [min(begin + num_bytes, last) for begin in range(first, last, num_bytes)]
    begins = [first, *ends[:-1]]
    return [_part(shard, begin, end, end - begin) for begin, end in zip(begins, ends, strict=True)]


def _part(shard: FileShard, begin: int, end: int, num_bytes: int) -> FileShard:
    name = f"{shard.file.name}[{begin}:{end}]"
    return replace(shard, name=name, num_bytes=num_bytes, part=(begin, end))


def read(shard: FileShard, fields: Fields, start: int = 0) -> Iterator[Document | Skipped]:
    """Yield what a part of a file holds, from the item numbered ``start`` on.

    Raises:
        OSError: Where a disk, a net or a file behind a URL fails, with the path.
    """
    if shard.file.problem:
        if not start:
            yield Skipped(shard.file.problem, shard.file.name)
        return
    try:
        yield from _READERS[shard.format.kind](shard, fields, start)
    except Exception as error:
        if shard.file.is_local:
            reason = _SKIPPED_ERRORS.get(error.errno or 0) if isinstance(error, OSError) else None
            if reason is None or start:  # whoever goes on would miss what it had begun to read
                raise
            yield Skipped(reason, shard.file.name)
            return
        # every file system has errors of its own, and few of them say what was read
        raise OSError(f"cannot read {shard.file.path}: {error!r}") from error


def _read_text(shard: FileShard, fields: Fields, start: int) -> Iterator[Document | Skipped]:
    """Yield the file as one document."""
    if start:
        return
    name = shard.file.name
    parts, num_bytes = [], 0
    for part in _chunks(shard):
        if isinstance(part, Damage):
            yield Skipped(part.reason, name)
            return
        parts.append(part)
        num_bytes += len(part)
        if num_bytes > fields.max_record_bytes:
            yield Skipped(too_large(fields.max_record_bytes), name)
            return
    try:
        # bytes, not text mode: line ends stay as they are
        text = b"".join(parts).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Skipped(WRONG_UTF8, f"{name}, byte {error.start}")
    else:
        yield Document(text, name) if text else Skipped(EMPTY, name)


def _read_jsonl(shard: FileShard, fields: Fields, start: int) -> Iterator[Document | Skipped]:
    if shard.part is None:
        lines = split_lines(_chunks(shard), fields.max_record_bytes)
        yield from read_records(lines, LinePlaces(shard.file.name), fields, start)
    else:
        with shard.file.open() as opened:
            yield from read_range(opened, shard.file, shard.part, RANGE_BYTES, fields, start)


def _read_parquet(shard: FileShard, fields: Fields, start: int) -> Iterator[Document | Skipped]:
    with shard.file.open_to_seek() as opened:
        yield from read_groups(opened, shard.file.name, fields, shard.part, start)


def _read_csv(shard: FileShard, fields: Fields, start: int) -> Iterator[Document | Skipped]:
    name = shard.file.name
    delimiter = "\t" if ".tsv" in suffixes_of(name) else None
    lines = split_lines(_chunks(shard), fields.max_record_bytes)
    yield from islice(read_rows(lines, name, fields, delimiter), start, None)


_READERS = {"text": _read_text, "jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}


def _chunks(shard: FileShard) -> Iterator[bytes | Damage]:
    """Yield what a file holds, decompressed and as UTF-8."""
    return as_utf8(_raw_chunks(shard))


def _raw_chunks(shard: FileShard) -> Iterator[bytes | Damage]:
    with shard.file.open() as opened:
        if shard.format.codec is None:
            while chunk := opened.read(1 << 20):
                yield chunk
        else:
            yield from decompress(opened, shard.format.codec, can_seek=shard.file.can_seek)
