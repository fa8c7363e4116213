"""One door for checkpoints of either kind: whether a path is a file or a folder does not matter."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any

from pile_lightning.checkpoint.data_only import check_data, load_data
from pile_lightning.checkpoint.manifest import Manifest
from pile_lightning.checkpoint.remote import copy_of, local_path
from pile_lightning.checkpoint.sealed_file import (
    read_any,
    read_file,
    read_file_summary,
    verify_file,
)
from pile_lightning.checkpoint.shards import read_plain, read_whole
from pile_lightning.checkpoint.swap import standing

__all__ = [
    "check_readable",
    "checkpoint_size",
    "load_whole",
    "read_checkpoint",
    "read_summary",
    "verify_checkpoint",
]


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
    return _without(read_file(place, map_location=map_location), without)


def read_checkpoint(
    source: str | Path | IO[bytes], *, map_location: Any = "cpu", without: Collection[str] = ()
) -> dict[str, Any]:
    """Return a checkpoint of any program, from anywhere; nothing in it can run code.

    One of ours is checked first.

    Args:
        source: A file, the folder of a sharded one, the URL of a file, or what is open for reading.
        map_location: Where to put the tensors of a file; those of a folder are put into memory.
        without: Keys of the checkpoint that are not needed.

    Raises:
        FileNotFoundError: Where there is none.
        OSError: Where it cannot be read.
        ValueError: Where it is damaged, or holds more than data.
    """
    if not isinstance(source, str | Path):
        state = load_data(source, name="the open file", map_location=map_location)
        return _without(state, without)
    local = local_path(source)
    if local is None:
        with copy_of(str(source)) as file:
            return _without(read_any(file, name=source, map_location=map_location), without)
    place = _find(local)
    if place.is_dir():
        return read_whole(place, without=without)
    with place.open("rb") as file:
        return _without(read_any(file, name=place, map_location=map_location), without)


def check_readable(path: str | Path) -> None:
    """Check that a checkpoint on this machine holds data only, without reading its tensors.

    Raises:
        FileNotFoundError: Where there is none.
        ValueError: Where it does not.
    """
    place = _find(path)
    if place.is_dir():
        Manifest.read(place)
        read_plain(place)
    else:
        check_data(place, name=place)


def _without(state: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in keys}


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
