"""Files of prepared data that say whether they are what was written: checksums, and sealed JSON.

A disk that loses a block, a bit that flips and a copy that was mixed up leave files of the right
length, which would be read as other text. All files of a store are compared with the checksums that
were taken when they were written, once a process and before anything is read, at 1 to 2 GB a second
and core where the disk gives as much.
"""

import json
import os
import time
import warnings
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pile_lightning.checksum import Checksum, checksum
from pile_lightning.data.cores import default_num_proc
from pile_lightning.data.progress import make_bar

__all__ = ["find_damage", "publish", "read_json", "warn_of_damage", "write_json"]

_SEAL = "crc32"
_WORTH_TELLING = 5.0  # seconds

_Stamp = tuple[int, int, int, int]

_good: dict[Path, tuple[_Stamp, Checksum]] = {}
"""What this process has compared and found good, as of when."""
_told: set[tuple[Path, _Stamp | None]] = set()


def find_damage(files: Mapping[Path, Checksum], *, quiet: bool) -> list[Path]:
    """Return the files that are missing or not what was written, and warn of the latter, once.

    A file that this process found good is not read again until it is written to.

    Args:
        files: What was written.
        quiet: Whether to show no progress; warnings are given anyway.
    """
    began, num_bytes = time.monotonic(), 0
    unknown: dict[Path, _Stamp] = {}
    damaged = []
    for path, expected in files.items():
        stamp = _stamp(path)
        if stamp is None:
            damaged.append(path)
        elif stamp[0] != expected.size:
            damaged.append(path)
            warn_of_damage(path, f"it has {stamp[0]:,} bytes instead of {expected.size:,}")
        elif _good.get(path) != (stamp, expected):
            unknown[path] = stamp
            num_bytes += expected.size
    with (
        make_bar("checking prepared data", num_bytes, quiet) as bar,
        ThreadPoolExecutor(default_num_proc()) as pool,
    ):
        for path, found in zip(unknown, pool.map(_sum, unknown), strict=True):
            if found == files[path]:
                _good[path] = unknown[path], found
            else:
                damaged.append(path)
                warn_of_damage(path, "its checksum is not that of what was written")
            bar.update(files[path].size)
    seconds = time.monotonic() - began
    if seconds > _WORTH_TELLING and not quiet:
        print(f"checked {num_bytes / 1e6:,.1f} MB of prepared data in {seconds:.1f} s", flush=True)
    return damaged


def warn_of_damage(path: Path, reason: str) -> None:
    """Warn that a file is damaged and will be made again, once for each state of the file."""
    state = path, _stamp(path)
    if state not in _told:
        _told.add(state)
        warnings.warn(f"{path} is damaged ({reason}); it is made again", stacklevel=3)


def _stamp(path: Path) -> _Stamp | None:
    """Return what changes when a file is written to, or None where there is none."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _sum(path: Path) -> Checksum | None:
    try:
        return list(checksum(path))[-1]
    except OSError:  # gone meanwhile, or a block that the disk cannot read
        return None


def write_json(path: Path, plain: Mapping[str, Any]) -> None:
    """Write an object with its own checksum through to the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump({**plain, _SEAL: _seal(plain)}, file)
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """Return what ``write_json`` wrote.

    Raises:
        FileNotFoundError: Where there is nothing.
        ValueError: Where it is damaged.
    """
    try:
        plain = json.loads(path.read_bytes())
        if isinstance(plain, dict) and plain.pop(_SEAL, None) == _seal(plain):
            return plain
    except (ValueError, RecursionError):
        pass
    raise ValueError(f"{path} is damaged")


def _seal(plain: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(plain).encode())


def publish(files: Iterable[Path], folder: Path) -> None:
    """Move finished files of the same disk into a folder, in order, each at once."""
    for file in files:
        os.replace(file, folder / file.name)
    if os.name != "nt":  # so that the names, too, outlast a power cut
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
