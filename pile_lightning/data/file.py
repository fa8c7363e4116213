"""One file, on a disk of this machine or behind a URL: where it is, and how to open it.

A URL is whatever fsspec opens: ``https://``, ``s3://``, ``gs://``, ``memory://``. Over http a file
is read in one stream from its start, since many servers can do nothing else.
"""

import hashlib
import shutil
import tempfile
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple, cast

__all__ = ["STREAMED", "File", "file_system", "is_url", "protocol", "suffixes_of"]

STREAMED = ("http", "https")
"""Protocols of servers that need not be able to seek."""

_BUFFER_BYTES = 1 << 17  # lines of 15 kB come twice as fast as with the default of 8 kB
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16


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
    problem: str = ""
    """Why it cannot be read; empty where it can."""

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk of this machine."""
        return not is_url(self.path)

    @property
    def can_seek(self) -> bool:
        """Whether reading can begin in its middle."""
        return protocol(self.path) not in STREAMED and self.size is not None

    def open(self) -> BinaryIO:
        """Open for reading from the start."""
        if self.is_local:
            return open(self.path, "rb", buffering=_BUFFER_BYTES)
        fs, path = file_system(self.path)
        # block_size=0: one request for the whole file instead of one for each block
        options = {"block_size": 0} if protocol(self.path) in STREAMED else {}
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

    def content_stamp(self) -> str:
        """Return what changes with the content and stays in a copy; elsewhere, the plain stamp.

        Of a file above 4 MiB its size and 64 blocks of 64 KiB from all over it are hashed, so that
        terabytes need not be read; of a smaller one everything is.
        """
        if self.problem or not self.is_local:
            return self.stamp
        size = self.size or 0
        digest = hashlib.blake2b(str(size).encode(), digest_size=16)
        with open(self.path, "rb", buffering=0) as file:
            if size <= _SAMPLES * _SAMPLE_BYTES:
                digest.update(file.read())
            else:
                for number in range(_SAMPLES):
                    file.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
        return digest.hexdigest()


def is_url(path: str) -> bool:
    """Return whether fsspec is to open a path.

    Example:
        >>> is_url("s3://bucket/books"), is_url("books/*.txt")
        (True, False)
    """
    return "://" in path


def protocol(path: str) -> str:
    """Return the protocol of a URL, nothing for a path.

    Example:
        >>> protocol("s3://bucket/books")
        's3'
    """
    return path.partition("://")[0] if is_url(path) else ""


def file_system(url: str) -> tuple[Any, str]:
    """Return what opens a URL, and the path that it knows it by.

    Raises:
        ValueError: For a protocol that fsspec does not know.
    """
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ValueError as error:
        raise ValueError(f"cannot open URLs such as {url!r}: {error}") from error
    return fs, f"{path.rstrip('/')}/" if url.endswith("/") else path


def suffixes_of(name: str) -> list[str]:
    """Return the suffixes of a file's name, in lower case.

    Example:
        >>> suffixes_of("books/A.JSONL.gz"), suffixes_of("README"), suffixes_of(".hidden")
        (['.jsonl', '.gz'], [], [])
    """
    last = name.rpartition("/")[2].lstrip(".")
    at = last.find(".")
    return [] if at < 0 or last.endswith(".") else list(_split(last[at:].lower()))


@lru_cache(maxsize=1 << 10)
def _split(suffixes: str) -> tuple[str, ...]:
    return tuple(f".{part}" for part in suffixes.split(".")[1:])
