"""Which files a path, a folder, a glob or a URL stands for, and how to open them.

A URL is whatever fsspec opens: ``https://``, ``s3://``, ``gs://``, ``memory://``. Over http a file
is read in one stream from its start, since many servers can do nothing else.
"""

import glob
import hashlib
import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

from pile_lightning.data.compression import CODECS

__all__ = ["File", "is_url", "list_files", "walk"]

_BUFFER_BYTES = 1 << 17  # lines of 15 kB come twice as fast as with the default of 8 kB
_STREAMED = ("http", "https")
_STAMPS = ("ETag", "etag", "md5Hash", "Content-MD5", "LastModified", "Last-Modified", "mtime")


class File(NamedTuple):
    """A file on this machine or elsewhere."""

    name: str
    """Its path below the folder that was asked for: stays the same when that moves."""
    path: str
    """Where it is now: a path or a URL."""
    size: int | None
    """Bytes, where known."""
    stamp: str
    """What changes when its content changes."""

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk of this machine."""
        return not is_url(self.path)

    @property
    def can_seek(self) -> bool:
        """Whether reading can begin in its middle."""
        return _protocol(self.path) not in _STREAMED and self.size is not None

    def open(self) -> BinaryIO:
        """Open for reading from the start."""
        if self.is_local:
            return open(self.path, "rb", buffering=_BUFFER_BYTES)
        fs, path = _file_system(self.path)
        # block_size=0: one request for the whole file instead of one for each block
        options = {"block_size": 0} if _protocol(self.path) in _STREAMED else {}
        return cast(BinaryIO, fs.open(path, "rb", **options))

    def open_to_seek(self) -> BinaryIO:
        """Open for reading anywhere; of a file from elsewhere, a copy that goes when it is closed.

        Then trouble of the net is told from damage of the file.
        """
        file = self.open()
        if self.is_local:
            return file
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        with file:
            shutil.copyfileobj(file, copy)
        copy.seek(0)
        return cast(BinaryIO, copy)


def is_url(path: str) -> bool:
    """Return whether fsspec is to open a path.

    Example:
        >>> is_url("s3://bucket/books"), is_url("books/*.txt")
        (True, False)
    """
    return "://" in path


def list_files(path: str, suffixes: Sequence[str]) -> list[File]:
    """Return the files that a path stands for, sorted by name.

    Args:
        path: A file, a folder, a glob, or the URL of one.
        suffixes: What a name ends in to be read in a folder; a file or glob is taken as it is.

    Raises:
        FileNotFoundError: Where there is nothing to read, with what there is instead.
    """
    path = path.removeprefix("file://")
    files, others = _list_url(path, suffixes) if is_url(path) else _list_local(path, suffixes)
    if not files:
        seen = f"; it holds files of {', '.join(others)}" if others else ""
        raise FileNotFoundError(
            f"{path!r} holds no file to read: folders are searched for "
            f"{', '.join(suffixes)}{seen}; add such files, set suffixes, or give a glob"
        )
    return sorted(files)


def walk(root: Path, wanted: Callable[[str], bool]) -> Iterator[File]:
    """Yield the files below ``root`` whose own and whose folders' names are wanted."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if wanted(name)]
        yield from (_local_file(Path(folder, name), root) for name in names if wanted(name))


def _list_local(path: str, suffixes: Sequence[str]) -> tuple[list[File], list[str]]:
    given = Path(path).expanduser()
    if given.is_file():
        return [_local_file(given, given.parent)], []
    if given.is_dir():
        return _chosen(list(walk(given, lambda name: not _is_hidden(name))), suffixes)
    if not glob.has_magic(path):
        raise FileNotFoundError(
            f"{path!r} does not exist (looked in {Path.cwd()}); give a file, a folder, or a glob "
            f"such as 'books/**/*.rst'"
        )
    root = given
    while glob.has_magic(str(root)) and not root.exists():
        root = root.parent
    matches = (Path(match) for match in glob.glob(str(given), recursive=True))
    return [_local_file(match, root) for match in matches if match.is_file()], []


def _list_url(url: str, suffixes: Sequence[str]) -> tuple[list[File], list[str]]:
    streamed = _protocol(url) in _STREAMED
    fs, path = _file_system(url)
    fs.invalidate_cache()  # or files that are added later stay unseen
    try:
        # "?" begins the query of a URL
        if any(sign in path for sign in ("*[" if streamed else "*[?")):
            infos = fs.glob(path, detail=True)
            root = path[: min(path.find(sign) for sign in "*[?" if sign in path)]
            root = root.rpartition("/")[0]
        # to ask an http server whether a file is a folder may load the file
        elif path.endswith("/") or (not streamed and fs.isdir(path)):
            infos, root = fs.find(path, detail=True), path.rstrip("/")
        else:
            return [_remote_file(fs, fs.info(path), path, posixpath.dirname(path))], []
    except FileNotFoundError as error:
        reason = error.__cause__ or error
        raise FileNotFoundError(f"{url!r} does not exist or cannot be reached: {reason}") from error
    except Exception as error:
        raise OSError(f"cannot list {url!r}: {error}") from error
    files = [
        _remote_file(fs, info, name, root)
        for name, info in infos.items()
        if info.get("type") != "directory"
    ]
    if root != path.rstrip("/"):  # a glob
        return files, []
    shown = [file for file in files if not any(map(_is_hidden, file.name.split("/")))]
    return _chosen(shown, suffixes)


def _chosen(found: list[File], suffixes: Sequence[str]) -> tuple[list[File], list[str]]:
    """Return the files of a folder that are read, and the suffixes of the others."""
    wanted = {suffix.lower() for suffix in suffixes}
    kinds = [(file, "".join(_suffixes(file.name))) for file in found]
    files = [file for file, _ in kinds if next(iter(_suffixes(file.name)), "") in wanted]
    return files, sorted({kind for _, kind in kinds if kind})


def _suffixes(name: str) -> list[str]:
    """Return the suffix of a name and, if that is one of compression, the one before it too."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    return suffixes[-2:] if suffixes and suffixes[-1] in CODECS else suffixes[-1:]


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _local_file(path: Path, root: Path) -> File:
    stat = path.stat()
    name = path.relative_to(root).as_posix()
    return File(name, str(path), stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")


def _remote_file(fs: Any, info: dict[str, Any], path: str, root: str) -> File:
    name = path.removeprefix(root).lstrip("/")
    stamps = {key: str(info[key]) for key in (*_STAMPS, "size", "created") if key in info}
    stamp = hashlib.sha256(json.dumps(stamps, sort_keys=True).encode()).hexdigest()[:20]
    return File(name, fs.unstrip_protocol(path), info.get("size"), stamp)


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ValueError as error:
        raise ValueError(f"cannot open URLs such as {url!r}: {error}") from error
    return fs, f"{path.rstrip('/')}/" if url.endswith("/") else path


def _protocol(path: str) -> str:
    return path.partition("://")[0] if is_url(path) else ""
