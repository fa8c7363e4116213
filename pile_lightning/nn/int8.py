"""Linear layers with weights of one byte each, and one scale a row.

A token of a small batch waits for weights to come from memory, and fewer bytes come sooner. A CPU
with bf16 units multiplies the bytes themselves for a few rows, and widens them, some rows at a
time, for more. A CPU without them has a kernel for weights of two bytes: the steps of an int8 are
float16 numbers without rounding, and it multiplies them in float32. (1024 x 4096, one core with
AVX2, a row: 0.72 ms where float32 takes 1.26 ms; 8 rows: 1.5 and 5.1 ms.)
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Int8Linear", "quantize_rows"]

# up to so many rows of input the kernel for int8 weights is the faster way, measured
_FEW = 8
# rows of the weight that are widened at once, so that they stay in the cache
_BLOCK = 2048
# a matrix of fewer elements is as fast in float32, measured
_WORTHWHILE = 2**18


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row of ``weight`` (out, in) to 255 steps between its largest values.

    Returns:
        The steps (out, in) as int8, and the size of one (out,) in float32. No weight moves by more
        than half of it.

    Example:
        >>> quantize_rows(torch.tensor([[1.27, -0.5], [0.0, 0.0]]))[0].tolist()
        [[127, -50], [0, 0]]
    """
    wide = weight.detach().float()
    scale = wide.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (wide / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


class Int8Linear(nn.Module):
    """``x @ weight.T + bias`` with an int8 weight, for inference.

    Args:
        weight: The matrix (out, in).
        bias: The bias (out,).

    Example:
        >>> layer = Int8Linear(torch.full((3, 4), 0.5))
        >>> layer(torch.ones(2, 4)).round(decimals=4).tolist()
        [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """

    steps: Tensor
    scale: Tensor
    bias: Tensor | None
    _wide: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        steps, scale = quantize_rows(weight)
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("scale", scale.to(weight.dtype), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)
        on_cpu = weight.device.type == "cpu" and weight.dtype == torch.float32
        large = weight.numel() >= _WORTHWHILE
        wide = self.weight if on_cpu and not large else None
        self.register_buffer("_wide", wide, persistent=False)
        self._half: Any = _as_halves(steps) if on_cpu and large else None

    @property
    def weight(self) -> Tensor:
        """The matrix (out, in), widened at each call."""
        return self.steps.to(self.scale.dtype) * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``x`` (..., in)."""
        flat = x.reshape(-1, x.shape[-1])
        out = self._multiply(flat)
        if self.bias is not None:
            out = out + self.bias
        return out.to(x.dtype).view(*x.shape[:-1], -1)

    def _multiply(self, x: Tensor) -> Tensor:
        """Multiply ``x`` (rows, in) by the fastest way for its type and number of rows."""
        if self._wide is not None:
            return F.linear(x, self._wide.to(x.dtype))
        if self._half is not None and x.dtype == torch.float32:
            product: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._half)
            return product * self.scale
        if x.device.type == "cpu" and x.dtype == torch.bfloat16 and len(x) <= _FEW:
            return torch._weight_int8pack_mm(x, self.steps, self.scale.to(x.dtype))
        blocks = [F.linear(x, block.to(x.dtype)) for block in torch.split(self.steps, _BLOCK)]
        return (blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)) * self.scale


def _as_halves(steps: Tensor) -> Any:
    """Pack steps as float16 for FBGEMM's kernel, or return None where there is none (not x86)."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return None
    return torch.ops.quantized.linear_prepack_fp16(steps.float(), None)
