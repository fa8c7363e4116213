"""Write a safetensors file in one pass, with its checksum taken on the way.

The library's writer takes no checksum and hides the reason of a failed write; its reader is used.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor

__all__ = ["DTYPES", "Checksum", "SummingFile", "checksum", "dtype_name", "write_safetensors"]

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Types of tensors and how the format names them."""

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
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
            yield Checksum(size, crc)
    if not size:
        yield Checksum(0, 0)


def dtype_name(name: str, tensor: Tensor) -> str:
    """Return how the format names the type of ``tensor``.

    Raises:
        TypeError: For a type that it does not know.
    """
    if tensor.dtype not in DTYPES:
        raise TypeError(
            f"{name} is of {tensor.dtype}, which no safetensors file holds; save it as one of "
            f"{', '.join(map(str, DTYPES))}"
        )
    return DTYPES[tensor.dtype]


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> Checksum:
    """Write tensors by name and bring them to the disk.

    Raises:
        TypeError: For a type that the format does not know.
    """
    header: dict[str, dict[str, object]] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": dtype_name(name, tensor),
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as raw:
        file = SummingFile(raw)
        file.write(len(head).to_bytes(8, "little"))
        file.write(head)
        for tensor in tensors.values():
            # one tensor at a time crosses from the device
            flat = tensor.detach().to("cpu").contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)
        return file.sync()
