"""The one place where a file that ``torch.save`` wrote is read: as data, so that no code is run."""

import errno
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

__all__ = ["check_data", "load_data"]


def load_data(
    file: str | os.PathLike[str] | IO[bytes],
    *,
    name: str | Path,
    map_location: Any = "cpu",
    mmap: bool = False,
) -> dict[str, Any]:
    """Return a checkpoint that holds tensors, numbers, strings, lists and mappings.

    Args:
        file: A path, or what is open for reading.
        name: What to call it in an error.
        map_location: As ``torch.load`` takes it.
        mmap: Whether tensors are read from the path when they are looked at.

    Raises:
        ValueError: For a file that holds anything else, or that torch did not write.
    """
    try:
        found = torch.load(file, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{name} {_what_it_holds(error)}; only tensors and plain data are read, for anything "
            f"else could run code: take another checkpoint, or save the same one without it"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # torch raises what it comes across in bytes that it did not write
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(
            f"{name} is no checkpoint that torch has written, or is damaged "
            f"({_first_sentence(error)}); take another checkpoint"
        ) from None
    if not isinstance(found, Mapping):
        raise ValueError(
            f"{name} holds a {type(found).__name__} and no checkpoint, which is a dict; take "
            f"another checkpoint"
        )
    return cast(dict[str, Any], found)


def check_data(path: Path, *, name: str | Path) -> None:
    """Check that a file holds data only, without reading its tensors.

    Raises:
        ValueError: For one that does not.
    """
    load_data(os.fspath(path), name=name, mmap=zipfile.is_zipfile(path))


def _what_it_holds(error: Exception) -> str:
    said = " ".join(str(error).split())
    named = re.search(r"GLOBAL ([\w.]+)", said)
    if named is not None:
        return f"holds {named[1]}"
    return "holds more than data" if "nsupported" in said else "cannot be read as data"


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0][:160]
