"""Attention itself: queries, keys and values in, what the queries gathered out.

Training and reading a prompt run ``F.scaled_dot_product_attention``, or ``causal_blocks`` where
that is the faster of the two, or ``flex_documents`` where that was chosen. One query at a time is
another matter: each key is read once and used once, and the kernels are made for many queries. On
CPU in bf16 theirs took five times as long as two plain products over keys that are stored for them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pile_lightning.nn.cache import LayerCache
from pile_lightning.nn.causal_blocks import causal_blocks, suits_causal_blocks
from pile_lightning.nn.flex_documents import flex_documents, suits_flex
from pile_lightning.nn.masks import CAUSAL, Documents, Mask

__all__ = ["attend", "attend_cached", "merge_heads", "split_heads"]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Compute ``softmax(q k^T / sqrt(head_dim) + mask) v``; a row that may see nothing gives zeros.

    Args:
        q: Queries (batch, heads, query, head_dim).
        k: Keys (batch, kv_heads, key, head_dim); each serves heads / kv_heads neighbouring queries.
        v: Values, shaped like the keys.
        mask: What may attend to what.
    """
    first = mask.first if isinstance(mask, Documents) else None
    if (mask is CAUSAL or first is not None) and suits_causal_blocks(q):
        return causal_blocks(q, k, v, first)
    grouped = k.shape[1] != q.shape[1]
    if mask is None or mask is CAUSAL:
        return F.scaled_dot_product_attention(q, k, v, is_causal=mask is CAUSAL, enable_gqa=grouped)
    if isinstance(mask, Documents):
        if mask.blocks is not None and suits_flex(q):
            return flex_documents(q, k, v, mask.first, mask.blocks)
        mask = mask.allowed()
    if grouped:
        # on CUDA the kernels that take a mask know no groups: enable_gqa would mean plain math
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attend_cached(q: Tensor, k: Tensor, v: Tensor, mask: Mask, cache: LayerCache) -> Tensor:
    """Add ``k`` and ``v`` to ``cache``, and attend from ``q`` to all that it holds.

    Args:
        q: Queries (batch, heads, new, head_dim).
        k: Keys (batch, kv_heads, new, head_dim).
        v: Values, shaped like the keys.
        mask: True where a query may attend to one of the cache's keys, ``CAUSAL`` or ``None``.
        cache: Keys and values of what was read before.
    """
    first = cache.length == 0
    keys, values = cache.append(k, v)
    if q.shape[2] == 1:
        # of one query and one key, causal is everything
        return _attend_one(q, cache, mask if isinstance(mask, Tensor) else None)
    if first:
        return attend(q, k, v, mask)
    return attend(q, keys.contiguous() if keys.stride(-1) != 1 else keys, values, mask)


def _attend_one(q: Tensor, cache: LayerCache, mask: Tensor | None) -> Tensor:
    """Attend from one query a head; ``mask`` is the same for all heads (batch, 1, 1, key)."""
    batch, heads, _, dim = q.shape
    k, v = cache.for_one_query()
    # the queries that share a key stand under one another: it is read once, and never repeated
    q = q.reshape(batch, k.shape[1], heads // k.shape[1], dim)
    if k.stride(-1) == 1:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    else:
        scores = (q * (1 / math.sqrt(dim))) @ k.transpose(2, 3)
        if mask is not None:
            scores[..., : cache.length].masked_fill_(~mask, -torch.inf)
        scores[..., cache.length :] = -torch.inf
        out = scores.softmax(-1) @ v
    return out.reshape(batch, heads, 1, dim)


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """Reshape (batch, seq, heads * head_dim) to (batch, heads, seq, head_dim)."""
    batch, seq, width = x.shape
    return x.view(batch, seq, width // head_dim, head_dim).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Reshape (batch, heads, seq, head_dim) to (batch, seq, heads * head_dim)."""
    return x.transpose(1, 2).flatten(2)
