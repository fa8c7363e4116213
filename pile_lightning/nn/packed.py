"""Linear layers whose weights lie in memory as the CPU's kernels want them.

oneDNN reads a matrix in blocks. Given a plain one it puts the blocks together anew at each call,
which is nothing for a batch of training and half the time of a single token. Packed once, the same
product gives the same numbers, in bf16 bit for bit.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PackedLinear", "can_pack"]

# rows that the blocks are laid out for: those of 64 are near the best for 1 to 512, measured
_ROWS = 64


def can_pack(weight: Tensor) -> bool:
    """Say whether ``PackedLinear`` is for ``weight``: on CPU, in float32 or bf16, with oneDNN.

    In bf16 oneDNN itself needs a CPU that knows the type, or AVX512.

    Example:
        >>> can_pack(torch.ones(4, 4, dtype=torch.float64))
        False
    """
    ops = torch.ops.mkldnn
    known = hasattr(ops, "_reorder_linear_weight") and hasattr(ops, "_linear_pointwise")
    kinds = (torch.float32, torch.bfloat16)
    fits = weight.device.type == "cpu" and weight.dtype in kinds and weight.numel() > 0
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (fits and known and available):
        return False
    return weight.dtype != torch.bfloat16 or bool(ops._is_mkldnn_bf16_supported())


class PackedLinear(nn.Module):
    """``x @ weight.T + bias`` with a packed weight, for inference.

    Args:
        weight: The matrix (out, in), for which ``can_pack`` is true.
        bias: The bias (out,).

    Example:
        >>> layer = PackedLinear(torch.ones(3, 4))
        >>> layer(torch.ones(2, 5, 4)).shape
        torch.Size([2, 5, 3])
    """

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)
        # inductor's own operations: there is no public name for them
        self._packed: Any = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)

    @property
    def weight(self) -> Tensor:
        """The matrix (out, in), unpacked anew at each call."""
        dense: Tensor = self._packed.to_dense()
        return dense

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``x`` (..., in)."""
        if x.dtype != self._packed.dtype:  # autocast knows nothing of this operation
            return F.linear(x, self.weight, self.bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return out
