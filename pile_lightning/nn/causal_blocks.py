"""Causal attention in plain products over a few blocks of queries: the fastest on a CPU, compiled.

Each block of queries is multiplied with the keys up to its end and no others, so that four blocks
save three eighths of the work, and the compiler fuses what is between the two products. Forward and
backward of 8 x 4 heads of 128 over 512 positions took 75 ms on one core where
``F.scaled_dot_product_attention`` took 171 (bf16; 144 and 185 in float32). The products round
scores to bf16, where the kernel keeps them in float32: outputs are 0.3 % off instead of 0.2 %,
gradients as far off as the kernel's. The weights are kept for the backward, which for long rows is
too much: those are left to the kernel.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["causal_blocks", "is_fastest_compiled", "suits_causal_blocks"]

_MOST_BLOCKS = 4
_LEAST_QUERIES = 128
_LONGEST = 1024


def is_fastest_compiled(device: torch.device, seq: int) -> bool:
    """Say whether ``causal_blocks``, compiled, is the faster way for rows of ``seq`` positions.

    Example:
        >>> is_fastest_compiled(torch.device("cpu"), 256)
        True
    """
    return device.type == "cpu" and seq <= _LONGEST


def suits_causal_blocks(q: Tensor) -> bool:
    """Say whether ``causal_blocks`` is the faster way for queries (batch, heads, seq, head_dim).

    Example:
        >>> suits_causal_blocks(torch.ones(1, 1, 256, 8))  # not eager: nothing would be fused
        False
    """
    return torch.compiler.is_compiling() and is_fastest_compiled(q.device, q.shape[2])


def causal_blocks(q: Tensor, k: Tensor, v: Tensor, first: Tensor | None = None) -> Tensor:
    """Compute ``softmax(q k^T / sqrt(head_dim)) v``, each query seeing itself and what is before.

    Args:
        q: Queries (batch, heads, seq, head_dim).
        k: Keys (batch, kv_heads, seq, head_dim); each serves heads / kv_heads neighbouring queries.
        v: Values, shaped like the keys.
        first: The first position that each query sees (batch, seq); ``None`` for 0.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 300, 8)
        >>> expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        >>> torch.testing.assert_close(causal_blocks(q, k, v), expected)
    """
    if has_torch_function((q, k, v)):  # as torch's own functions do, for who has another way
        stand_in: Tensor = handle_torch_function(causal_blocks, (q, k, v), q, k, v, first)
        return stand_in
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    seq, head_dim = q.shape[2:]
    length = max(_LEAST_QUERIES, -(-seq // _MOST_BLOCKS))
    out = []
    for start in range(0, seq, length):
        end = min(start + length, seq)
        scores = q[:, :, start:end] @ k[:, :, :end].mT
        keys = torch.arange(end, device=q.device)
        seen = keys <= keys[start:, None]
        if first is not None:
            seen = seen & (keys >= first[:, None, start:end, None])
        weights = _Weights.apply(scores, seen, head_dim**-0.5)  # type: ignore[no-untyped-call]
        out.append(weights @ v[:, :, :end])
    return torch.cat(out, dim=2)


class _Weights(torch.autograd.Function):
    """The softmax of what is seen, in float32; kept as the product after it keeps them."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, seen: Tensor, scale: float) -> Tensor:
        wide = (scores.float() * scale).masked_fill(~seen, float("-inf")).softmax(-1)
        weights = wide.to(scores.dtype)
        ctx.scale = scale
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weights,) = ctx.saved_tensors
        wide, grad_wide = weights.float(), grad.float()
        by_score = wide * (grad_wide - (wide * grad_wide).sum(-1, keepdim=True)) * ctx.scale
        return by_score.to(weights.dtype), None, None
