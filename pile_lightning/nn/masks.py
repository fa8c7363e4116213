"""Masks as data: boolean tensors, True where a query may attend to a key.

Every function is pure and returns something that broadcasts to (batch, heads, query, key); ``&``
narrows and ``|`` widens: ``causal(n) & document(ids)`` keeps packed documents apart, ``causal(n) |
prefix(lengths, n)`` lets everything see a prefix. Two masks need no tensor: ``None`` allows
everything, and ``CAUSAL`` says "plain causal" to attention, which then runs the kernel's own fast
path instead of reading a mask. ``CausalMask`` says of a tensor that it allows nothing later, which
then need not be computed. A mask goes into the scores *before* the softmax, always.
"""

from enum import Enum
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

__all__ = ["CAUSAL", "CausalMask", "Mask", "causal", "document", "packed", "padding", "prefix"]


class _Known(Enum):
    """Masks that the attention kernel knows by name."""

    CAUSAL = "causal"


CAUSAL: Literal[_Known.CAUSAL] = _Known.CAUSAL
"""Every query sees itself and what is before it, and as many queries as keys."""


class CausalMask(NamedTuple):
    """A mask in which every query sees itself, and nothing after it."""

    allowed: Tensor
    """True where a query may attend to a key (batch, 1, seq, seq)."""


Mask: TypeAlias = Tensor | CausalMask | Literal[_Known.CAUSAL] | None
"""What attention takes: a boolean tensor, one known to be causal, ``CAUSAL``, or ``None`` for
everything."""


def causal(
    num_queries: int, num_keys: int | None = None, *, device: torch.device | None = None
) -> Tensor:
    """Let each query see itself and the keys before it; the queries are the last of the keys.

    Args:
        num_queries: Number of queries.
        num_keys: Number of keys, more than the queries where a cache holds earlier ones; ``None``
            means as many.
        device: Where to make the mask.

    Returns:
        Mask (1, 1, query, key).

    Example:
        >>> causal(2, 3).int()[0, 0]
        tensor([[1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
    """
    num_keys = num_queries if num_keys is None else num_keys
    keys = torch.arange(num_keys, device=device)
    queries = torch.arange(num_keys - num_queries, num_keys, device=device)
    return (keys <= queries[:, None])[None, None]


def padding(attention_mask: Tensor) -> Tensor:
    """Hide the keys that are padding.

    Args:
        attention_mask: True, or 1, where there is a real token (batch, key).

    Returns:
        Mask (batch, 1, 1, key).

    Example:
        >>> padding(torch.tensor([[1, 1, 0]])).shape
        torch.Size([1, 1, 1, 3])
    """
    return attention_mask.bool()[:, None, None, :]


def document(document_ids: Tensor) -> Tensor:
    """Keep attention inside each document of a packed row.

    Args:
        document_ids: The document that each position belongs to (batch, seq).

    Returns:
        Mask (batch, 1, query, key).

    Example:
        >>> document(torch.tensor([[0, 0, 1]])).int()[0, 0]
        tensor([[1, 1, 0],
                [1, 1, 0],
                [0, 0, 1]], dtype=torch.int32)
    """
    return (document_ids[:, :, None] == document_ids[:, None, :])[:, None]


def packed(num_positions: int, document_ids: Tensor | None) -> Mask:
    """Choose the cheapest form of "causal within a document" for whole rows.

    Args:
        num_positions: Positions of a row.
        document_ids: The document that each belongs to (batch, seq); ``None`` means one a row.

    Returns:
        ``CAUSAL``, or a ``CausalMask``.

    Example:
        >>> packed(3, None) is CAUSAL
        True
    """
    if document_ids is None:
        return CAUSAL
    return CausalMask(causal(num_positions, device=document_ids.device) & document(document_ids))


def prefix(lengths: Tensor, num_keys: int) -> Tensor:
    """Let every query see the first keys of its row; widen ``causal`` with it for a prefix LM.

    Args:
        lengths: Length of each row's prefix (batch,).
        num_keys: Number of keys.

    Returns:
        Mask (batch, 1, 1, key).

    Example:
        >>> (causal(3) | prefix(torch.tensor([2]), 3)).int()[0, 0]
        tensor([[1, 1, 0],
                [1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
    """
    keys = torch.arange(num_keys, device=lengths.device)
    return (keys < lengths[:, None])[:, None, None, :]
