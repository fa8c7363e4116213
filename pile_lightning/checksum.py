"""Checksums of files: taken while one is written, and compared when it is read."""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = ["Checksum", "SummingFile", "checksum"]

_PIECE = 2**24  # bytes


class Checksum(NamedTuple):
    """What tells a whole file from a damaged one."""

    size: int
    """Bytes."""
    crc32: int
    """Of all bytes."""


class SummingFile:
    """A file that is written once, front to back, and takes the checksum of what passes.

    Args:
        file: Where it goes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = 0
        self.crc32 = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data``."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            self.file.write(piece)
            self.crc32 = zlib.crc32(piece, self.crc32)
        self.size += len(view)
        return len(view)

    def sync(self) -> Checksum:
        """Bring it to the disk, and return its checksum."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return Checksum(self.size, self.crc32)


def checksum(path: Path) -> Iterator[Checksum]:
    """Yield the checksum of the file read so far; the last is that of the file."""
    size = crc = 0
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(_PIECE))
        while num_bytes := file.readinto(buffer):
            size, crc = size + num_bytes, zlib.crc32(buffer[:num_bytes], crc)
            yield Checksum(size, crc)
    if not size:
        yield Checksum(0, 0)
