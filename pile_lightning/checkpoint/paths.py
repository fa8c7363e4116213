"""One door for checkpoints of either kind: whether a path is a file or a folder does not matter."""

import io
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, BinaryIO

import torch

from pile_lightning.checkpoint.manifest import Manifest
from pile_lightning.checkpoint.sealed_file import (
    is_sealed,
    read_file,
    read_file_summary,
    verify_file,
)
from pile_lightning.checkpoint.shards import read_whole
from pile_lightning.checkpoint.swap import standing

__all__ = ["as_file", "checkpoint_size", "load_whole", "read_summary", "verify_checkpoint"]


def read_summary(path: str | Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself, without reading its tensors.

    Raises:
        FileNotFoundError: Where there is none.
        ValueError: Where it is incomplete, damaged or of another program.
    """
    place = _find(path)
    return Manifest.read(place).summary if place.is_dir() else read_file_summary(place)


def verify_checkpoint(
    path: str | Path, *, on_bytes: Callable[[int], object] = lambda count: None
) -> None:
    """Check that a checkpoint is whole and what was written.

    Args:
        path: A file or a folder.
        on_bytes: Is told how many more bytes have been read.

    Raises:
        FileNotFoundError: Where there is none.
        ValueError: Where it is incomplete, damaged or of another program.
    """
    place = _find(path)
    if place.is_dir():
        Manifest.read(place).verify(place, on_bytes=on_bytes)
    else:
        verify_file(place, on_bytes=on_bytes)


def load_whole(
    path: str | Path, *, map_location: Any = "cpu", without: Collection[str] = ()
) -> dict[str, Any]:
    """Return a checkpoint with whole tensors, after checking it; nothing in it can run code.

    Args:
        path: A file or a folder.
        map_location: Where to put the tensors of a file; those of a folder are put into memory.
        without: Keys of the checkpoint that are not needed.

    Raises:
        FileNotFoundError: Where there is none.
        ValueError: Where it is incomplete, damaged or of another program.
    """
    place = _find(path)
    if place.is_dir():
        return read_whole(place, without=without)
    state = read_file(place, map_location=map_location)
    return {key: value for key, value in state.items() if key not in without}


def as_file(path: str | Path) -> BinaryIO:
    """Open a checkpoint for ``torch.load``; a folder becomes a file in memory, of the weights.

    A file of ours is checked; of another program's, torch says what it says.

    Raises:
        FileNotFoundError: Where there is none.
        ValueError: Where it is ours and incomplete or damaged.
    """
    place = _find(path)
    if place.is_dir():
        buffer = io.BytesIO()
        torch.save(read_whole(place, without=("optimizer_states",)), buffer)
        buffer.seek(0)
        return buffer
    if is_sealed(place):
        verify_file(place)
    return place.open("rb")


def checkpoint_size(path: str | Path) -> int:
    """Return the bytes that a checkpoint takes on the disk."""
    place = _find(path)
    files = [place] if place.is_file() else place.iterdir()
    return sum(file.stat().st_size for file in files)


def _find(path: str | Path) -> Path:
    place = standing(Path(path))
    if not place.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}; name one that exists")
    return place
