"""Files that are whole or as they were, whatever kills the process or fills the disk meanwhile."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

__all__ = ["partial", "replace_file", "sync_folder", "write_file"]


def partial(target: Path) -> Path:
    """Return where ``target`` is written: one fixed name, so that a kill leaves one at most."""
    return target.with_name(f".{target.name}.partial")


def write_file(path: str | Path, content: str | bytes) -> None:
    """Write a file beside ``path``, sync it and rename it; text is UTF-8 with line feeds.

    Raises:
        OSError: If it cannot be written; what was there is untouched.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_file(f"{folder}/a/config.yaml", "seed: 1")
        ...     Path(folder, "a/config.yaml").read_text()
        'seed: 1'
    """
    with replace_file(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def replace_file(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file beside ``path`` that takes its place when the block ends without an error.

    Folders that are missing are made. A link stays one: the file that it points to is replaced. A
    device or a pipe (``/dev/stdout``) is written to directly.

    Args:
        path: Where to.
        mode: ``wb``, or ``w`` for UTF-8 text with line feeds.

    Raises:
        OSError: If it cannot be written; what was there is untouched.
    """
    target = Path(os.path.realpath(path))
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    if target.exists() and not target.is_file() and not target.is_dir():
        with target.open(mode, **text) as device:
            yield device
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial(target).open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial(target).replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):  # also room for what else is to be written
            partial(target).unlink()
        if isinstance(error, OSError) and error.filename in (None, str(partial(target))):
            # of a full disk the system does not say which file found it full
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
