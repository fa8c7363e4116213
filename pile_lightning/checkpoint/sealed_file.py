"""Checkpoints in one file: what ``torch.save`` writes, sealed with a summary and a checksum.

The seal is the comment that a zip file may end with, so the file stays one that ``torch.load`` and
every zip tool opens: a summary in JSON, its length and checksum, the checksum of all before it, and
a mark.
(torch reads a file without looking at the zip's own checksums: a flipped bit becomes a weight.)
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from pile_lightning.checkpoint.data_only import load_data
from pile_lightning.checkpoint.safetensors_file import SummingFile
from pile_lightning.checkpoint.tree import without_excess

__all__ = ["read_any", "read_file", "read_file_summary", "verify_file", "write_file"]

_MARK = b"PILECKPT"
_TAIL = 3 * 8 + len(_MARK)  # the length and the checksums in hexadecimal digits, and the mark
_END = b"PK\x05\x06"
_END_SIZE = 22  # bytes of a zip's last record, of which the last two are the comment's length
_LONGEST = 2**16 - 1


def write_file(checkpoint: dict[str, Any], path: Path, summary: dict[str, Any]) -> None:
    """Write a checkpoint and bring it to the disk.

    Args:
        checkpoint: What to save.
        path: Where to.
        summary: What a list of checkpoints shows; it is read without the rest.

    Raises:
        OSError: Where it cannot be written.
    """
    with path.open("wb") as raw:
        file = _ZipFile(raw)
        try:
            torch.save(without_excess(checkpoint), cast(IO[bytes], file))
        except Exception as error:
            if file.error is not None:  # torch tells of it as "unexpected pos"
                raise file.error from None
            raise error
        file.seal(json.dumps(summary).encode("ascii"))
        file.sync()


class _ZipFile(SummingFile):
    """Holds back a zip's last record, to add a comment."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.error: OSError | None = None
        self._held = b""

    def write(self, data: bytes | memoryview) -> int:
        """Write all but the last bytes so far."""
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            if size >= _END_SIZE:
                super().write(self._held)
                super().write(view[:-_END_SIZE])
                self._held = bytes(view[-_END_SIZE:])
            else:
                self._held += bytes(view)
                super().write(self._held[:-_END_SIZE])
                self._held = self._held[-_END_SIZE:]
        except OSError as error:
            self.error = error
            raise
        return size

    def flush(self) -> None:
        """Do nothing: ``sync`` does."""

    def seal(self, summary: bytes) -> None:
        """Write the zip's last record with the seal as its comment."""
        length = len(summary) + _TAIL
        assert (self._held[:4], self._held[-2:]) == (_END, b"\0\0")
        assert length <= _LONGEST
        super().write(self._held[:-2] + length.to_bytes(2, "little"))
        super().write(summary)
        super().write(b"%08x%08x" % (len(summary), zlib.crc32(summary)))
        super().write(b"%08x" % self.crc32 + _MARK)


def read_file_summary(path: Path) -> dict[str, Any]:
    """Return the summary of a sealed file, without a look at the rest.

    Raises:
        ValueError: For a file that is not sealed.
    """
    with path.open("rb") as file:
        return _summary(path, file)


def _summary(path: str | Path, file: BinaryIO) -> dict[str, Any]:
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    try:
        if not tail.endswith(_MARK):
            raise ValueError
        length = int(tail[:8], 16)
        file.seek(size - _TAIL - length)
        written = file.read(length)
        if tail[8:16] != b"%08x" % zlib.crc32(written):
            raise ValueError
        summary = json.loads(written)
        if not isinstance(summary, dict):
            raise ValueError
    except (ValueError, OSError, RecursionError):
        raise ValueError(
            f"{path} ({size:,} bytes) does not end with the checksum of a checkpoint: it was cut "
            f"short, damaged, or written by another program; take another checkpoint"
        ) from None
    return summary


def verify_file(path: Path, *, on_bytes: Callable[[int], object] = lambda count: None) -> None:
    """Check that a file is the one that was written.

    Args:
        path: The file.
        on_bytes: Is told how many more bytes have been read.

    Raises:
        ValueError: For a file that is damaged or not sealed.
    """
    with path.open("rb") as file:
        _verify(path, file, on_bytes)


def _verify(path: str | Path, file: BinaryIO, on_bytes: Callable[[int], object]) -> None:
    _summary(path, file)
    size = file.seek(0, 2)
    end = size - len(_MARK) - 8  # of what the checksum is of
    file.seek(0)
    read = crc = 0
    while read < end:
        piece = file.read(min(2**24, end - read))
        read, crc = read + len(piece), zlib.crc32(piece, crc)
        on_bytes(len(piece))
    if file.read(8) != b"%08x" % crc:
        raise ValueError(
            f"{path} is damaged: its checksum is not that of its content; take another checkpoint"
        )
    on_bytes(size - end)


def read_file(path: Path, *, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint after checking it; nothing in it can run code.

    Raises:
        ValueError: For a file that is damaged or not sealed.
    """
    with path.open("rb") as file:  # one handle: the file of that name may be replaced meanwhile
        _verify(path, file, lambda count: None)
        file.seek(0)
        return load_data(file, name=path, map_location=map_location)


def read_any(file: BinaryIO, *, name: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint of ours, after checking it, or of another program; no code can be run.

    Args:
        file: What is open for reading.
        name: What to call it in an error.
        map_location: Where to put the tensors.

    Raises:
        ValueError: For a file that is ours and damaged, or that holds more than data.
    """
    file.seek(max(0, file.seek(0, 2) - len(_MARK)))
    if file.read() == _MARK:
        _verify(name, file, lambda count: None)
    file.seek(0)
    return load_data(file, name=name, map_location=map_location)
