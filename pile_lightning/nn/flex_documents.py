"""Attention within packed documents that reads no mask: FlexAttention, on a GPU, compiled.

Documents lie one after another, so what a block of queries sees is a range of blocks of keys: from
where the document of its first query begins, to itself. Keys of other documents are never read, and
blocks that all queries see whole are computed without looking at a mask. The range comes from where
documents begin; the mask of all pairs is never made. It is FlexAttention's (Dong et al., 2024),
which has no backward on a CPU: there, and where nothing is compiled, a mask is read.
"""

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["block_mask", "flex_documents", "has_flex", "suits_flex"]

_BLOCK = 128
_LEAST_HEAD_DIM = 16
_DEVICES = {"cuda"}
_DTYPES = {torch.bfloat16, torch.float16}


def has_flex(device: torch.device) -> bool:
    """Say whether FlexAttention can train on ``device``, compiled.

    Example:
        >>> has_flex(torch.device("cpu"))
        False
    """
    return device.type in _DEVICES


def suits_flex(q: Tensor) -> bool:
    """Say whether FlexAttention has a kernel for queries (batch, heads, seq, head_dim), here.

    Example:
        >>> suits_flex(torch.ones(1, 1, 256, 64))  # no GPU, and not compiled
        False
    """
    fits = q.dtype in _DTYPES and q.shape[-1] >= _LEAST_HEAD_DIM
    return torch.compiler.is_compiling() and has_flex(q.device) and fits


def block_mask(first: Tensor) -> BlockMask:
    """Say which blocks of keys each block of queries sees whole, and which in part.

    Args:
        first: Where the document of each position begins (batch, seq), as in ``Documents``.

    Example:
        >>> block_mask(torch.tensor([[0] * 200 + [200] * 312])).kv_num_blocks  # in part
        tensor([[[1, 2, 2, 2]]], dtype=torch.int32)
        >>> block_mask(torch.tensor([[0] * 200 + [200] * 312])).full_kv_num_blocks
        tensor([[[0, 0, 0, 1]]], dtype=torch.int32)
    """
    seq = first.shape[1]
    blocks = torch.arange(-(-seq // _BLOCK), device=first.device)
    last_query = ((blocks + 1) * _BLOCK).clamp(max=seq) - 1
    begin = first[:, ::_BLOCK] // _BLOCK  # of the first query's document
    # from here to the block before its own, the last query sees every key, so all queries do;
    # of a block that the row ends in, nothing is called whole, as torch's own functions have it
    whole = ((first[:, last_query] + _BLOCK - 1) // _BLOCK).minimum(blocks)
    whole = whole.where((blocks + 1) * _BLOCK <= seq, blocks)
    in_part = whole - begin
    cut = torch.where(blocks < in_part[..., None], begin[..., None] + blocks, blocks[:, None])
    full = (whole[..., None] + blocks).clamp(max=len(blocks) - 1)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= first[batch, query])

    def of_all_heads(counts_or_blocks: Tensor) -> Tensor:
        return counts_or_blocks[:, None].int().contiguous()

    made: BlockMask = BlockMask.from_kv_blocks(
        of_all_heads(in_part + 1),
        of_all_heads(cut),
        of_all_heads(blocks - whole),
        of_all_heads(full),
        BLOCK_SIZE=_BLOCK,
        mask_mod=sees,
        seq_lengths=(seq, seq),
    )
    return made


def flex_documents(q: Tensor, k: Tensor, v: Tensor, first: Tensor, blocks: BlockMask) -> Tensor:
    """Compute ``softmax(q k^T / sqrt(head_dim)) v``, each query seeing what is before in its own.

    Args:
        q: Queries (batch, heads, seq, head_dim).
        k: Keys (batch, kv_heads, seq, head_dim); each serves heads / kv_heads neighbouring queries.
        v: Values, shaped like the keys.
        first: Where the document of each position begins (batch, seq), for who has another way.
        blocks: What ``block_mask`` makes of it.
    """
    if has_torch_function((q, k, v)):  # as torch's own functions do
        stand_in: Tensor = handle_torch_function(flex_documents, (q, k, v), q, k, v, first, blocks)
        return stand_in
    out = flex_attention(q, k, v, block_mask=blocks, enable_gqa=q.shape[1] != k.shape[1])
    assert isinstance(out, Tensor)
    return out
