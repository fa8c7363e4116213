"""Write a safetensors file in one pass, with its checksum taken on the way.

The library's writer takes no checksum and hides the reason of a failed write; its reader is used.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pile_lightning.checksum import Checksum, SummingFile, checksum

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
