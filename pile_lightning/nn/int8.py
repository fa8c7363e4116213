"""Linear layers with weights of one byte each, and one scale a row.

A token of a small batch waits for weights to come from memory, and half the bytes come in half the
time. From nine rows on it is the products that take the time, and the weights are widened for them,
some rows at a time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Int8Linear", "quantize_rows"]

# up to so many rows of input the kernel for int8 weights is the faster way, measured
_FEW = 8
# rows of the weight that are widened at once, so that they stay in the cache
_BLOCK = 2048


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

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        steps, scale = quantize_rows(weight)
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("scale", scale.to(weight.dtype), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The matrix (out, in), widened anew at each call."""
        return self.steps.to(self.scale.dtype) * self.scale[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``x`` (..., in)."""
        flat = x.reshape(-1, x.shape[-1])
        if x.device.type == "cpu" and x.dtype == torch.bfloat16 and len(flat) <= _FEW:
            out = torch._weight_int8pack_mm(flat, self.steps, self.scale.to(x.dtype))
        else:
            steps = torch.split(self.steps, _BLOCK)
            blocks = [F.linear(flat, block.to(x.dtype)) for block in steps]
            out = (blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)) * self.scale
        if self.bias is not None:
            out = out + self.bias
        return out.to(x.dtype).view(*x.shape[:-1], -1)
