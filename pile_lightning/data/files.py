"""Sources of files: text, jsonl, CSV and parquet, compressed or not, here or behind a URL."""

import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path, PurePosixPath

from pile_lightning.data.compression import CODECS
from pile_lightning.data.file import File, is_url
from pile_lightning.data.folder import printable, walk
from pile_lightning.data.formats import FORMATS, FileShard, cut, divide, read
from pile_lightning.data.globs import folder_before
from pile_lightning.data.listing import list_files
from pile_lightning.data.readers import Document, Fields, Skipped
from pile_lightning.data.source import Shard, ShardedSource

__all__ = ["SUFFIXES", "FileSource", "StandardLibrary"]

_TEXT = "txt text md markdown rst adoc org tex html htm"
_CODE = (
    "py pyi js jsx mjs ts tsx c h cc cpp cxx hh hpp cu java kt scala go rs swift rb php pl lua r "
    "jl sh bash sql hs ml ex erl clj lisp el cs fs dart zig f90 asm"
)
_RECORDS = "jsonl ndjson csv tsv parquet"
SUFFIXES = ("", *(f".{suffix}" for suffix in f"{_TEXT} {_CODE} {_RECORDS}".split()))
"""What is read in a folder: text, code, records, and names without a suffix."""

_THREADS = 8  # hashing leaves the interpreter to others


@dataclass(frozen=True, kw_only=True)
class FileSource(ShardedSource):
    r"""Files of text: one file, a folder with all below it, a glob, or the URL of one of these.

    A ``.jsonl`` or ``.ndjson`` file holds one JSON object a line, a ``.parquet``, ``.csv`` or
    ``.tsv`` file one record a row, the latter two below a header; every other file is one
    document. All but parquet may be compressed, with ``.gz`` or ``.zst`` at the end of their names,
    and is UTF-8, or UTF-16 that begins with its mark. In a folder, names that start with a dot and
    other suffixes are left out; a file or glob is taken as it is. Linked folders are read once. A
    URL is whatever fsspec opens, such as ``https://``, ``s3://`` or ``gs://``; over http a folder
    has to end in ``/``.

    Large ``.jsonl`` and ``.parquet`` files are read in several shards. Each broken line, row or
    file, each pipe, device, or link that leads nowhere is yielded as ``Skipped`` and costs nothing
    beside it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_text("one")
        >>> _ = (folder / "b.jsonl").write_text('{"text": "two"}\n{"text": "thr')
        >>> for document in FileSource(folder).documents():
        ...     print(document)
        Document(text='one', name='a.txt', domain=None)
        Document(text='two', name='b.jsonl:1', domain=None)
        Skipped(reason='broken JSON', name='b.jsonl:2')

        The Pile's own format, whose records name their domain:

        >>> pile = FileSource("the_pile/*.jsonl.zst", domain_key="meta.pile_set_name")
        >>> pile.name
        'the_pile'
    """

    path: str | Path = field(kw_only=False)
    """A file, a folder, a glob such as ``books/**/*.rst``, or a URL."""
    name: str = ""
    """The domain; the last part of the path, without its suffix, by default."""
    text_key: str = "text"
    """Field of a record that holds its text; ``content.body`` is ``body`` in ``content``."""
    domain_key: str | None = None
    """Field of a record that names its domain, written the same way; None where none does."""
    format: str | None = None
    """``text``, ``jsonl``, ``csv`` or ``parquet`` for all files; None: by suffix."""
    suffixes: tuple[str, ...] = SUFFIXES
    """Suffixes of the files that are read in a folder, also with ``.gz`` or ``.zst`` behind; ``""``
    stands for names without one, which are read where they begin as text."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        object.__setattr__(self, "suffixes", tuple(self.suffixes))
        if not self.name:
            object.__setattr__(self, "name", _last_part(str(self.path)) or "text")
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(
                f"format={self.format!r} is unknown; choose among {', '.join(FORMATS)}, or leave "
                f"it out to go by suffix (compression always does)"
            )
        super().__post_init__()

    def shards(self) -> Sequence[FileShard]:
        """Return the files, sorted by relative path, large ones in parts of about 64 MiB.

        Raises:
            FileNotFoundError: Where there is no file to read.
            ValueError: For a file whose format is not read, or cannot be told.
        """
        files = list_files(str(self.path), self.suffixes).files
        options = json.dumps([self.text_key, self.domain_key])
        return [shard for file in files for shard in cut(file, self.format, options)]

    def content_fingerprint(self) -> str:
        """Hash the shards' names and the files' content (see ``File.content_stamp``)."""
        return _content_of(self.shards())

    def left_out(self) -> str:
        """Return in a line what the folder holds and is not read, nothing where all of it is."""
        return list_files(str(self.path), self.suffixes).describe_left_out()

    def divide(self, shard: Shard, num_bytes: int) -> Sequence[FileShard]:
        """Return ranges of about ``num_bytes`` of plain jsonl that can be read from its middle."""
        assert isinstance(shard, FileShard), f"{shard.name} is no shard of a FileSource"
        return divide(shard, num_bytes)

    @property
    def _fields(self) -> Fields:
        return Fields(
            text_key=self.text_key, domain_key=self.domain_key, max_record_bytes=self.record_limit
        )

    def read(self, shard: Shard, start: int = 0) -> Iterator[Document | Skipped]:
        """Yield what a shard of ``shards()`` holds, from the item numbered ``start`` on."""
        assert isinstance(shard, FileShard), f"{shard.name} is no shard of a FileSource"
        return read(shard, self._fields, start)


@dataclass(frozen=True, kw_only=True)
class StandardLibrary(ShardedSource):
    """The sources of the running Python's standard library, without tests: 12 MB on every machine.

    Example:
        >>> document = next(StandardLibrary().documents())
        >>> document.name
        '__future__.py'
    """

    name: str = "stdlib"
    """The domain."""

    _LEFT_OUT = frozenset(
        {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    )

    def shards(self) -> Sequence[FileShard]:
        """Return the modules, sorted by relative path.

        Raises:
            FileNotFoundError: Where the distribution left the sources out.
        """
        root = Path(sysconfig.get_paths()["stdlib"])
        files = walk(root, lambda name: name not in self._LEFT_OUT)
        modules = sorted(file for file in files if file.name.endswith(".py"))
        if not modules:
            raise FileNotFoundError(
                f"the standard library at {root} holds no .py files (some distributions ship it "
                f"compiled or zipped); give a folder of text instead"
            )
        return [shard for file in modules for shard in cut(file, "text", sys.version)]

    def content_fingerprint(self) -> str:
        """Hash the modules' names and content."""
        return _content_of(self.shards())

    def read(self, shard: Shard, start: int = 0) -> Iterator[Document | Skipped]:
        """Yield the module, as one document."""
        assert isinstance(shard, FileShard), f"{shard.name} is no shard of StandardLibrary"
        return read(shard, Fields(), start)


def _content_of(shards: Sequence[FileShard]) -> str:
    """Hash what the files hold, each read once, and what decides which documents that gives."""
    files = {shard.file.path: shard.file for shard in shards}
    with ThreadPoolExecutor(_THREADS) as pool:
        stamps = dict(zip(files, pool.map(File.content_stamp, files.values()), strict=True))
    listing = [
        [shard.name, shard.identity.removeprefix(shard.file.stamp), stamps[shard.file.path]]
        for shard in shards
    ]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _last_part(path: str) -> str:
    """Return the last part of a path before any glob, without its suffixes."""
    if is_url(path):
        parts = PurePosixPath(path.partition("://")[2].partition("?")[0]).parts
        plain = [part for part in parts if not has_magic(part)]
        last = PurePosixPath(plain[-1] if plain else "")
    else:
        last = PurePosixPath(printable(folder_before(path).resolve().name))
    return (last.with_suffix("") if last.suffix in CODECS else last).stem
