"""Linear layers whose weights lie in memory as the CPU's kernels want them.

oneDNN reads a matrix in blocks. From a plain one it makes the blocks at each call, which is nothing
for a batch of training and half the time of a few tokens. Packed once, the same product gives the
same numbers, in bf16 bit for bit. In float32 a single row is another matter: a plain product takes
half the time of a packed one (1024 x 4096, AVX2: 1.3 and 2.3 ms), so the plain matrix is kept too.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PackedLinear", "can_pack"]

# rows that the blocks are laid out for: those of 64 are near the best for 1 to 512, measured
_ROWS = 64
# a float32 matrix of fewer elements is as fast plain for 1 to 32 rows, measured
_WORTHWHILE = 2**19


def can_pack(weight: Tensor) -> bool:
    """Say whether ``PackedLinear`` is for ``weight``: on CPU, in bf16 or large in float32.

    oneDNN has to be there; in bf16 it needs a CPU that knows the type, or AVX512.

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
    if weight.dtype == torch.float32:
        return weight.numel() >= _WORTHWHILE
    return bool(ops._is_mkldnn_bf16_supported())


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
    _plain: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)
        plain = weight.detach() if weight.dtype == torch.float32 else None
        self.register_buffer("_plain", plain, persistent=False)
        # inductor's own operations: there is no public name for them
        self._packed: Any = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)

    @property
    def weight(self) -> Tensor:
        """The matrix (out, in); in bf16 it is unpacked at each call."""
        dense: Tensor = self._packed.to_dense() if self._plain is None else self._plain
        return dense

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``x`` (..., in)."""
        single = self._plain is not None and x.numel() == x.shape[-1]
        if single or x.dtype != self._packed.dtype:  # autocast knows nothing of a packed product
            return F.linear(x, self.weight, self.bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return out
