"""Masks as data: boolean tensors, True where a query may attend to a key.

Every function is pure and returns something that broadcasts to (batch, heads, query, key); ``&``
narrows and ``|`` widens: ``causal(n) & document(ids)`` keeps packed documents apart, ``causal(n) |
prefix(lengths, n)`` lets everything see a prefix. Two masks need no tensor: ``None`` allows
everything, and ``CAUSAL`` says "plain causal" to attention, which then runs the kernel's own fast
path instead of reading a mask. ``Documents`` says where each position's document begins, from which
attention in plain products makes what it needs of a mask, block by block. A mask goes into the
scores *before* the softmax, always.
"""

from enum import Enum
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

__all__ = ["CAUSAL", "Documents", "Mask", "causal", "document", "padding", "prefix"]


class _Known(Enum):
    """Masks that the attention kernel knows by name."""

    CAUSAL = "causal"


CAUSAL: Literal[_Known.CAUSAL] = _Known.CAUSAL
"""Every query sees itself and what is before it, and as many queries as keys."""


class Documents(NamedTuple):
    """Documents that lie one after another: every query sees what is before it in its own.

    Example:
        >>> Documents.of(torch.tensor([[0, 0, 1]])).allowed().int()[0, 0]
        tensor([[1, 0, 0],
                [1, 1, 0],
                [0, 0, 1]], dtype=torch.int32)
    """

    first: Tensor
    """Where the document of each position begins (batch, seq)."""
    blocks: BlockMask | None = None
    """The same as blocks of queries and keys, for a kernel that takes them."""

    @classmethod
    def of(cls, document_ids: Tensor) -> "Documents":
        """Find the borders between positions of different ids (batch, seq)."""
        places = torch.arange(document_ids.shape[1], device=document_ids.device)[1:]
        begins = torch.where(document_ids[:, 1:] != document_ids[:, :-1], places, 0)
        return cls(F.pad(begins.cummax(1).values, (1, 0)))

    def positions(self) -> Tensor:
        """Count the positions of each document from 0 (batch, seq).

        Example:
            >>> Documents.of(torch.tensor([[0, 0, 1]])).positions()
            tensor([[0, 1, 0]])
        """
        return torch.arange(self.first.shape[1], device=self.first.device) - self.first

    def allowed(self) -> Tensor:
        """Return the mask as a tensor (batch, 1, seq, seq)."""
        keys = torch.arange(self.first.shape[1], device=self.first.device)
        return causal(len(keys), device=keys.device) & (keys >= self.first[:, None, :, None])


Mask: TypeAlias = Tensor | Documents | Literal[_Known.CAUSAL] | None
"""What attention takes: a boolean tensor, documents, ``CAUSAL``, or ``None`` for everything."""


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
