"""The files below a folder: each once, also behind links, and what among them cannot be read."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from pile_lightning.data.file import File

__all__ = ["kind_of", "local_file", "printable", "walk"]

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_READ_ALREADY = "a link to a folder that is read already"
_AROUND = "a link to a folder around this one"


def walk(
    root: str | Path,
    wanted: Callable[[str], bool],
    left_out: Callable[[str, str], None] = lambda reason, name: None,
) -> Iterator[File]:
    """Yield the files below ``root`` whose own and whose folders' names are wanted.

    What is no file that can be read comes with its ``problem``. A linked folder is read like
    others, but none twice.

    Args:
        root: The folder.
        wanted: Says of a name whether to look at it.
        left_out: Is told the reason and name of each linked folder that is not read.
    """
    real_root = os.path.realpath(root)
    seen: set[tuple[int, int]] = set()
    folders = [(os.fspath(root), "")]
    links: list[tuple[str, str]] = []
    while folders or links:
        is_link = not folders  # after the folders themselves, which keep their own names so
        path, name = links.pop(0) if is_link else folders.pop()
        try:
            found = os.stat(path)
            if (found.st_dev, found.st_ino) in seen:
                left_out(_READ_ALREADY, name)
                continue
            if is_link and _holds(os.path.realpath(path), real_root):
                left_out(_AROUND, name)
                continue
            seen.add((found.st_dev, found.st_ino))
            with os.scandir(path) as entries:
                inside = sorted((entry for entry in entries if wanted(entry.name)), key=_name)
        except OSError as error:
            yield _broken(path, f"{name or '.'}/", _reason(error))
            continue
        prefix = f"{name}/" if name else ""
        for entry in inside:
            file = local_file(entry.path, prefix + entry.name, entry)
            if file.problem != _KINDS[stat.S_IFDIR]:
                yield file
            elif entry.is_symlink():
                links.append((entry.path, prefix + entry.name))
            else:
                folders.append((entry.path, prefix + entry.name))


def local_file(path: str, name: str, entry: "os.DirEntry[str] | None" = None) -> File:
    """Return a file on this machine, with its problem where it cannot be read."""
    try:
        found = os.stat(path) if entry is None else entry.stat()
    except OSError as error:
        return _broken(path, name, _reason(error, is_link=os.path.islink(path)))
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "")
    if not name.isascii() and printable(name) != name:
        return _broken(path, name, "a name that is no UTF-8")
    if kind:
        return _broken(path, name, kind)
    if not os.access(path, os.R_OK):
        return _broken(path, name, "permission denied")
    return File(name, path, found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


def kind_of(path: str) -> str:
    """Say what a path is where it is no file that can be read, nothing where it is one."""
    return local_file(path, "").problem


def printable(name: str) -> str:
    r"""Return a name with escapes for its bytes that are no UTF-8.

    Example:
        >>> print(printable("caf\udce9.txt"))
        caf\xe9.txt
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _broken(path: str, name: str, problem: str) -> File:
    return File(printable(name), path, 0, problem, problem)


def _reason(error: OSError, *, is_link: bool = False) -> str:
    if error.errno == errno.ELOOP:
        return "links that lead to each other"
    if error.errno == errno.ENOENT:
        return "a link that leads nowhere" if is_link else "vanished while it was listed"
    return (error.strerror or str(error)).lower()


def _holds(folder: str, other: str) -> bool:
    return os.path.commonpath([folder, other]) == folder


def _name(entry: "os.DirEntry[str]") -> str:
    return entry.name
