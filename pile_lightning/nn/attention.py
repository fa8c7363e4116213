"""Scaled dot-product attention with grouped-query heads, for self- and cross-attention.

The softmax itself is in ``attend``.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torch import Tensor, nn

from pile_lightning.nn.attend import attend, attend_cached, merge_heads, split_heads
from pile_lightning.nn.cache import LayerCache
from pile_lightning.nn.checks import check_name
from pile_lightning.nn.initialization import Linear
from pile_lightning.nn.masks import Mask
from pile_lightning.nn.norms import NormConfig, RMSNormConfig
from pile_lightning.nn.positions import Rotation, rotate
from pile_lightning.nn.short_conv import ShortConvConfig, convolve

__all__ = ["Attention", "AttentionConfig", "CrossAttention", "DocumentKernel"]

DocumentKernel: TypeAlias = Literal["mask", "flex"]
"""What keeps attention inside packed documents on a GPU."""


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Heads, and what is done to them.

    Raises:
        ValueError: If the heads are none, or do not share the key and value heads evenly.

    Example:
        >>> AttentionConfig(num_heads=4, num_kv_heads=2).build(32).k.weight.shape
        torch.Size([16, 32])
    """

    num_heads: int = 2
    """Query heads."""
    num_kv_heads: int | None = None
    """Key and value heads, each shared by num_heads / num_kv_heads queries (Ainslie et al., 2023);
    null for as many as query heads."""
    head_dim: int | None = None
    """Features of each head; null for d_model / num_heads."""
    qk_norm: NormConfig | None = field(
        default_factory=lambda: RMSNormConfig(gain="scalar", initial_gain=1.2)
    )
    """Norm of each query and each key (Henry et al., 2020); null for none. A scalar gain plays the
    part of a learned temperature."""
    bias: bool = False
    """Whether the projections have biases."""
    documents: DocumentKernel = "mask"
    """What keeps packed documents apart on a GPU, where blocks are compiled and compute in 16 bits:
    a mask that is read, or FlexAttention, which skips the keys of other documents."""

    def __post_init__(self) -> None:
        check_name(("mask", "flex"), documents=self.documents)
        kv_heads = self.resolve_kv_heads()
        if self.num_heads < 1 or kv_heads < 1 or self.num_heads % kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not a positive multiple of "
                f"num_kv_heads={kv_heads}; choose num_kv_heads among the divisors of num_heads"
            )

    def resolve_kv_heads(self) -> int:
        """Return the number of key and value heads."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    def resolve_head_dim(self, d_model: int) -> int:
        """Return the features of each head in a stream of width ``d_model``.

        Raises:
            ValueError: If ``head_dim`` is left open and the heads do not divide the width.
        """
        if self.head_dim is not None:
            return self.head_dim
        if d_model % self.num_heads:
            raise ValueError(
                f"d_model={d_model} is not a multiple of num_heads={self.num_heads}; choose "
                f"num_heads among its divisors, or set head_dim"
            )
        return d_model // self.num_heads

    def build(self, d_model: int, *, conv: ShortConvConfig | None = None) -> "Attention":
        """Make self-attention for a stream of width ``d_model``, with what ``conv`` convolves."""
        head_dim = self.resolve_head_dim(d_model)
        return Attention(
            d_model,
            num_heads=self.num_heads,
            num_kv_heads=self.resolve_kv_heads(),
            head_dim=head_dim,
            q_norm=None if self.qk_norm is None else self.qk_norm.build(head_dim),
            k_norm=None if self.qk_norm is None else self.qk_norm.build(head_dim),
            bias=self.bias,
            conv=conv,
        )


class Attention(nn.Module):
    """Self-attention: every position gathers from those that the mask allows.

    Args:
        d_model: Width of the residual stream.
        num_heads: Query heads.
        num_kv_heads: Key and value heads.
        head_dim: Features of each head.
        q_norm: Applied to each query before it is turned.
        k_norm: Applied to each key before it is turned.
        bias: Whether the projections have biases.
        conv: Which of queries, keys and values are convolved; ``None`` for none.

    Example:
        >>> import torch
        >>> from pile_lightning.nn.masks import CAUSAL
        >>> attention = AttentionConfig(num_heads=2).build(8)
        >>> attention(torch.ones(1, 3, 8), mask=CAUSAL).shape
        torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        d_model: int,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
        bias: bool = False,
        conv: ShortConvConfig | None = None,
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        # three products: as fast as one of all rows, measured, and a plan may split each by heads
        self.q = Linear(d_model, num_heads * head_dim, role="input", bias=bias)
        self.k = Linear(d_model, num_kv_heads * head_dim, role="input", bias=bias)
        self.v = Linear(d_model, num_kv_heads * head_dim, role="input", bias=bias)
        self.out = Linear(num_heads * head_dim, d_model, role="output", bias=bias)
        self.q_norm = q_norm
        self.k_norm = k_norm
        kv_width = num_kv_heads * head_dim
        self.q_conv = None if conv is None else conv.build("queries", num_heads * head_dim)
        self.k_conv = None if conv is None else conv.build("keys", kv_width)
        self.v_conv = None if conv is None else conv.build("values", kv_width)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Mask = None,
        rotation: Rotation | None = None,
        position_ids: Tensor | None = None,
        values: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Mix every position of ``x`` (batch, seq, d_model) with those that ``mask`` allows.

        Args:
            x: The stream.
            mask: True where a query may attend to a key, over all the cache's keys where there is
                one.
            rotation: Angles that turn queries and keys.
            position_ids: Distance from the start of the document (batch or 1, seq), which tells
                convolutions where to stop; ``None`` for rows of one document.
            values: Added to the values (batch, seq, kv_heads * head_dim).
            cache: Earlier keys and values, which those of ``x`` are added to.
        """
        q = convolve(self.q_conv, self.q(x), position_ids, cache, "q")
        k = convolve(self.k_conv, self.k(x), position_ids, cache, "k")
        v = convolve(self.v_conv, self.v(x), position_ids, cache, "v")
        q, k, v = (split_heads(part, self.head_dim) for part in (q, k, v))
        if self.q_norm is not None:
            q = self.q_norm(q)
        if self.k_norm is not None:
            k = self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if values is not None:
            v = v + split_heads(values.to(v.dtype), self.head_dim)
        mixed = attend(q, k, v, mask) if cache is None else attend_cached(q, k, v, mask, cache)
        out: Tensor = self.out(merge_heads(mixed))
        return out


class CrossAttention(nn.Module):
    """Attention from one sequence to another, ``memory``: an encoder's output.

    Example:
        >>> import torch
        >>> attention = CrossAttention(8, num_heads=2, bias=True)
        >>> attention(torch.ones(1, 3, 8), torch.ones(1, 5, 8)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, d_model: int, *, num_heads: int, bias: bool = False) -> None:
        super().__init__()
        self.head_dim = d_model // num_heads
        self.q = Linear(d_model, d_model, role="input", bias=bias)
        self.k = Linear(d_model, d_model, role="input", bias=bias)
        self.v = Linear(d_model, d_model, role="input", bias=bias)
        self.out = Linear(d_model, d_model, role="output", bias=bias)

    def forward(self, x: Tensor, memory: Tensor, *, mask: Mask = None) -> Tensor:
        """Mix ``x`` (batch, query, d_model) with ``memory`` (batch, key, d_model)."""
        q = split_heads(self.q(x), self.head_dim)
        k, v = (split_heads(part(memory), self.head_dim) for part in (self.k, self.v))
        out: Tensor = self.out(merge_heads(attend(q, k, v, mask)))
        return out
