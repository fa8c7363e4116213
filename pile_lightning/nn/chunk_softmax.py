"""The softmax between the two products of a head, over a chunk of rows whose logits are at hand.

``exponentiate`` makes ``exp(logit - reference)`` of them and sums it up, in float32 or wider. That
is all that is done to whole logits: the gradient by them is the same numbers with a factor for each
row and another number at the label, so that both products of the backward take what is there, and
the factor goes to their narrow side. Where logits are capped, the slope of the cap is in what is
put, and not in the sum.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from pile_lightning.nn.logit_cap import cap_logits, cap_slope

__all__ = ["compiled_pass", "exponentiate", "piece_size"]

# float16 ends at 65,504, below the sum over a large vocabulary, and is fine from 6e-5 upwards
_FLOAT16_LIFT = math.log(256)

_Pass: TypeAlias = Callable[[Tensor, Tensor, torch.dtype, float | None], tuple[Tensor, Tensor]]


def piece_size(chunk_size: int, vocab: int, device: torch.device) -> int:
    """Return the rows of ``vocab`` logits that ``exponentiate`` takes at a time."""
    # on a CPU what two passes read should stay in its cache
    return min(max(128, 2**20 // vocab), chunk_size) if device.type == "cpu" else chunk_size


def exponentiate(
    z: Tensor,
    out: Tensor,
    *,
    piece: int,
    wide: torch.dtype,
    compile: bool = False,
    cap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Put the exponentials of logits into ``out``, each relative to a reference of its row.

    That is the largest logit; for float16 something above it, so that no sum is out of its range.

    Args:
        z: Logits (rows, vocab) in the products' type; used up.
        out: Where to, shaped alike. It may be in the same memory where it begins ``piece`` rows
            before: into the very place of what it reads the compiled pass would go by way of
            another buffer, which takes more than twice as long.
        piece: Rows at a time; a multiple of it.
        wide: What is computed in.
        compile: Read and write in two compiled passes; eager, every operation is one.
        cap: Bound of the logits, see ``cap_logits``; ``None`` for none.

    Returns:
        The reference and the sum of the exponentials, of each row (rows, 1).

    Example:
        >>> z = torch.zeros(1, 2)
        >>> exponentiate(z, torch.empty(1, 2), piece=1, wide=torch.float32)
        (tensor([[0.]]), tensor([[2.]]))
    """
    one_pass = compiled_pass() if compile else _eager
    pieces = zip(torch.split(z, piece), torch.split(out, piece), strict=True)
    reference, total = zip(*(one_pass(*each, wide, cap) for each in pieces), strict=True)
    return torch.cat(reference), torch.cat(total)


@cache
def compiled_pass() -> _Pass:
    """Return what does a piece, compiled."""
    # not where the module is imported: that would import the compiler
    return torch.compile(_fused, dynamic=False)


def _fused(z: Tensor, out: Tensor, wide: torch.dtype, cap: float | None) -> tuple[Tensor, Tensor]:
    reference = _above(cap_logits(z.amax(-1, keepdim=True).to(wide), cap), z.dtype)
    capped = cap_logits(z.to(wide), cap)
    e = (capped - reference).exp()
    out.copy_(e if cap is None else e * cap_slope(capped, cap))
    return reference, e.sum(-1, keepdim=True)


def _eager(z: Tensor, out: Tensor, wide: torch.dtype, cap: float | None) -> tuple[Tensor, Tensor]:
    e = cap_logits(z.to(wide), cap)
    slope = None if cap is None else cap_slope(e, cap)
    reference = _above(e.amax(-1, keepdim=True), z.dtype)
    total = e.sub_(reference).exp_().sum(-1, keepdim=True)
    out.copy_(e if slope is None else e.mul_(slope))
    return reference, total


def _above(largest: Tensor, dtype: torch.dtype) -> Tensor:
    return largest + _FLOAT16_LIFT if dtype == torch.float16 else largest
