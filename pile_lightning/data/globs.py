"""Globs of local files: ``**`` follows a linked folder once, where the standard library never ends.

Two links to a folder around them make it look into 2 to the 40 folders.
"""

import glob
import os
from fnmatch import fnmatchcase
from pathlib import Path

from pile_lightning.data.file import File
from pile_lightning.data.folder import local_file, walk

__all__ = ["expand", "folder_before"]


def folder_before(pattern: str) -> Path:
    """Return the folder that a glob begins with, before its first sign that is none of a name."""
    root = Path(pattern).expanduser()
    while glob.has_magic(str(root)) and not root.exists():
        root = root.parent
    return root


def expand(pattern: str) -> list[File]:
    """Return what a glob matches below the folder that it begins with, but folders.

    As in the standard library, names that start with a dot have to be written with it.
    """
    root = folder_before(pattern)
    if not root.is_dir():
        return []
    parts = Path(pattern).expanduser().relative_to(root).parts
    if "**" in parts:
        shown = any(part.startswith(".") for part in parts)
        found = walk(root, lambda name: shown or not name.startswith("."))
        return [file for file in found if _matches(tuple(file.name.split("/")), parts)]
    names = sorted(glob.glob(os.path.join(*parts), root_dir=root))
    files = [local_file(os.path.join(root, name), Path(name).as_posix()) for name in names]
    return [file for file in files if file.problem != "a folder"]


def _matches(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        if _matches(names, parts[1:]):
            return True
        return bool(names) and names[0][0] != "." and _matches(names[1:], parts)
    if not names or (names[0].startswith(".") and not parts[0].startswith(".")):
        return False
    return fnmatchcase(names[0], parts[0]) and _matches(names[1:], parts[1:])
