"""Where text comes from: sources that yield documents, and what is none, in a fixed order.

Here are the base class and the sources of files; reading one file is in ``readers``. A source is
read more than once, so it must yield the same documents each time.
"""

import glob
import hashlib
import json
import os
import sys
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pile_lightning.data.readers import Document, FieldCheck, Skipped, read_records, read_text

__all__ = ["FileSource", "Source", "StandardLibrary", "as_sources"]


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Documents of one domain, in a fixed order.

    Example:
        >>> class Squares(Source):
        ...     def documents(self):
        ...         return (Document(f"{i} squared is {i * i}", f"square {i}") for i in range(3))
        ...
        ...     def fingerprint(self):
        ...         return "squares up to 3"
        >>> [document.text for document in Squares(name="squares").documents()][2]
        '2 squared is 4'
    """

    name: str = ""
    """The domain, under which metrics are logged."""

    @abstractmethod
    def documents(self) -> Iterator[Document | Skipped]:
        """Yield every document, and a ``Skipped`` for each that cannot be read: none is lost."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return what changes when the documents change, without reading them."""

    def num_bytes(self) -> int | None:
        """Return about how many bytes ``documents`` reads, for a progress bar, if known."""
        return None


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """Text files: one file, a folder with all below it, or a glob.

    A ``.jsonl`` file holds one JSON object a line, each a document; every other file is one
    document. In a folder, names that start with a dot and other suffixes are left out; a file or
    glob is taken as it is.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_text("one")
        >>> _ = (folder / "b.jsonl").write_text('{"text": "two"}')
        >>> [document.text for document in FileSource(folder).documents()]
        ['one', 'two']
    """

    path: str | Path = field(kw_only=False)
    """A file, a folder, or a glob such as ``books/**/*.rst``."""
    name: str = ""
    """The domain; the last part of the path, without its suffix, by default."""
    text_key: str = "text"
    """Field of a ``.jsonl`` record that holds its text."""
    suffixes: tuple[str, ...] = (".txt", ".md", ".py", ".jsonl")
    """Suffixes of the files that are read in a folder."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(self.path))
        object.__setattr__(self, "suffixes", tuple(self.suffixes))
        if not self.name:
            root = _root(Path(str(self.path)).expanduser())
            object.__setattr__(self, "name", root.resolve().stem or "text")

    def documents(self) -> Iterator[Document | Skipped]:
        """Yield the documents of every file, sorted by relative path."""
        root, files = self._files()
        fields = FieldCheck(self.text_key)
        for file in files:
            name = _relative(file, root)
            if file.suffix == ".jsonl":
                yield from read_records(file, name, fields)
            else:
                yield from read_text(file, name)
        fields.judge()

    def fingerprint(self) -> str:
        """Hash the files' relative paths, sizes and times of change."""
        root, files = self._files()
        return _stat_fingerprint(root, files, self.text_key)

    def num_bytes(self) -> int:
        """Return the size of the files."""
        return sum(file.stat().st_size for file in self._files()[1])

    def _files(self) -> tuple[Path, list[Path]]:
        """Return the folder that names are relative to, and the files in order."""
        path = Path(str(self.path)).expanduser()
        root = _root(path)
        if path.is_file():
            return path.parent, [path]
        if path.is_dir():
            found = list(_walk(path, lambda name: not name.startswith(".")))
            files = [file for file in found if file.suffix in self.suffixes]
            others = sorted({file.suffix for file in found} - {""})
        else:
            matches = glob.glob(str(path), recursive=True)
            files, others = [Path(match) for match in matches if Path(match).is_file()], []
            if not files and not glob.has_magic(str(path)):
                raise FileNotFoundError(
                    f"{str(self.path)!r} does not exist (looked in {Path.cwd()}); give a file, a "
                    f"folder, or a glob such as 'books/**/*.rst'"
                )
        if not files:
            seen = f"; it holds files of {', '.join(others)}" if others else ""
            raise FileNotFoundError(
                f"{str(self.path)!r} holds no file to read: folders are searched for "
                f"{', '.join(self.suffixes)}{seen}; add such files, set suffixes, or give a glob"
            )
        return root, sorted(files, key=lambda file: _relative(file, root))


@dataclass(frozen=True, kw_only=True)
class StandardLibrary(Source):
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

    def documents(self) -> Iterator[Document | Skipped]:
        """Yield every module, sorted by relative path."""
        root, files = self._files()
        for file in files:
            yield from read_text(file, _relative(file, root))

    def fingerprint(self) -> str:
        """Hash Python's version and the files' relative paths, sizes and times of change."""
        root, files = self._files()
        return _stat_fingerprint(root, files, sys.version)

    def num_bytes(self) -> int:
        """Return the size of the files."""
        return sum(file.stat().st_size for file in self._files()[1])

    def _files(self) -> tuple[Path, list[Path]]:
        root = Path(sysconfig.get_paths()["stdlib"])
        modules = _walk(root, lambda name: name not in self._LEFT_OUT)
        files = [file for file in modules if file.suffix == ".py"]
        if not files:
            raise FileNotFoundError(
                f"the standard library at {root} holds no .py files (some distributions ship it "
                f"compiled or zipped); give a folder of text instead"
            )
        return root, sorted(files, key=lambda file: _relative(file, root))


def _root(path: Path) -> Path:
    """Return the part of a path before any glob, which its files' names are relative to."""
    while glob.has_magic(str(path)) and not path.exists():
        path = path.parent
    return path


def _walk(root: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """Yield the files below ``root`` whose own and whose folders' names are wanted."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if wanted(name)]
        yield from (Path(folder, name) for name in files if wanted(name))


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _stat_fingerprint(root: Path, files: Iterable[Path], *extra: str) -> str:
    stats = ((_relative(file, root), file.stat()) for file in files)
    listing = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    return hashlib.sha256(json.dumps([*extra, listing]).encode()).hexdigest()


def as_sources(sources: str | Source | Sequence[str | Source]) -> tuple[Source, ...]:
    """Return what a user gave as sources of different names.

    Raises:
        ValueError: For no source, or two of one name.
    """
    given = [sources] if isinstance(sources, str | Source) else list(sources)
    if not given:
        raise ValueError("sources=[] names no text; give a file, a folder, a glob, or 'stdlib'")
    made = tuple(_as_source(source) for source in given)
    names = [source.name for source in made]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{names.count(name)} sources are named {name!r}, and metrics are kept by name; "
                f"give them names of their own: FileSource(path, name=...)"
            )
    return made


def _as_source(source: str | Source) -> Source:
    if isinstance(source, Source):
        return source
    return StandardLibrary() if source == "stdlib" else FileSource(source)
