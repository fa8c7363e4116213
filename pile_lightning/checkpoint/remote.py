"""Checkpoints that lie elsewhere: whatever fsspec opens, copied to this machine to be read."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, cast

__all__ = ["copy_of", "is_url", "local_path"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_url(path: str | Path) -> bool:
    """Return whether a path is the URL of something.

    Example:
        >>> is_url("S3://bucket/last.ckpt"), is_url("runs/last.ckpt")
        (True, False)
    """
    return "://" in str(path)


def local_path(path: str | Path) -> Path | None:
    """Return where a path or URL lies on this machine, or None where it lies elsewhere.

    Raises:
        ValueError: For a URL of a kind that fsspec does not know.

    Example:
        >>> local_path("runs/last.ckpt"), local_path("FILE:///runs/last.ckpt"), local_path("s3://a")
        (PosixPath('runs/last.ckpt'), PosixPath('/runs/last.ckpt'), None)
    """
    if not is_url(path):
        return Path(path)
    kind = _URL.match(str(path))
    if kind is None or kind[1].lower() not in ("file", "local"):
        return None
    from fsspec.core import url_to_fs

    return Path(url_to_fs(_spelled(str(path)))[1])


def copy_of(url: str) -> BinaryIO:
    """Return a copy of a file from elsewhere, which goes when it is closed.

    Raises:
        FileNotFoundError: Where there is none.
        OSError: Where it cannot be read.
        ValueError: For a URL of a kind that fsspec does not know.
    """
    copy = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        _copy(url, copy)
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return cast(BinaryIO, copy)


def _copy(url: str, copy: Any) -> None:
    try:
        with _open(_spelled(url)) as file:
            shutil.copyfileobj(file, copy, 2**24)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint {url}; name one that exists") from None
    except ImportError as error:
        raise ImportError(f"{url} cannot be opened ({error}); install what it needs") from None
    except Exception as error:  # each kind of store has its own errors
        said = " ".join(str(error).split()) or type(error).__name__
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(
            f"{url} cannot be read ({said}); name a file that can, or copy it to this machine"
        ) from None


def _open(url: str) -> Any:
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    # block_size=0: one request for the whole file, since many servers can do nothing else
    options = {"block_size": 0} if url.startswith(("http://", "https://")) else {}
    return fs.open(path, "rb", **options)


def _spelled(url: str) -> str:
    """Write the kind of a URL in small letters: fsspec knows no other."""
    return _URL.sub(lambda kind: kind[0].lower(), url, count=1)
