"""Kernels for several networks of one shape that are computed as one, by ``torch.vmap``.

``vmap`` gives every operation a leading axis, of members. For some it has no good rule: attention
goes member by member on a CPU, a linear layer makes a product of each row of the batch, and into an
autograd function it cannot look. ``StackedKernels`` puts others in their place, in any network: it
sees functions by name, whoever calls them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pile_lightning.nn.causal_blocks import causal_blocks
from pile_lightning.nn.feed_forward import relu2
from pile_lightning.nn.flex_documents import flex_documents
from pile_lightning.nn.loss import linear_cross_entropy
from pile_lightning.nn.masks import Documents

__all__ = ["StackedKernels"]


class StackedKernels(TorchFunctionMode):
    """Within it, ``torch.vmap`` over networks is as fast as products written for it.

    Example:
        >>> weights, x = torch.ones(3, 2, 4), torch.ones(1, 5, 4)
        >>> with StackedKernels():
        ...     torch.vmap(lambda weight: F.linear(x, weight))(weights).shape
        torch.Size([3, 1, 5, 2])
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call what stands in for ``func``, or ``func``."""
        return _STAND_INS.get(func, func)(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if input.ndim < 3:
        return F.linear(input, weight, bias)
    # rows under one another: one product a member
    rows = F.linear(input.flatten(0, -2), weight, bias)
    return rows.view(*input.shape[:-1], -1)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **more: Any,
) -> Tensor:
    settings = {"dropout_p": dropout_p, "is_causal": is_causal, **more}
    if torch.compiler.is_compiling():  # it takes no rules; on other devices vmap has one
        compute = _products if query.device.type == "cpu" else F.scaled_dot_product_attention
        return compute(query, key, value, attn_mask, **settings)
    if query.ndim < 3:
        return _attention(query[None], key[None], value[None], attn_mask, **settings)[0]
    out: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        query, key, value, attn_mask, settings
    )
    return out


def _products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    *,
    dropout_p: float,
    is_causal: bool,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attend in plain products, which compiled are no slower for rows that are not long."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = (query @ key.mT).float() * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is None:
        weights = scores.softmax(-1)
    elif attn_mask.dtype == torch.bool:
        weights = scores.masked_fill(~attn_mask, float("-inf")).softmax(-1)
        weights = weights.masked_fill(~attn_mask, 0)  # a row that may see nothing gives zeros
    else:
        weights = (scores + attn_mask).softmax(-1)
    return F.dropout(weights, dropout_p).to(value.dtype) @ value


def _causal(query: Tensor, key: Tensor, value: Tensor, first: Tensor | None) -> Tensor:
    allowed = None if first is None else Documents(first).allowed()
    return _attention(query, key, value, allowed, is_causal=allowed is None, enable_gqa=True)


def _packed(query: Tensor, key: Tensor, value: Tensor, first: Tensor, blocks: Any) -> Tensor:
    return _causal(query, key, value, first)


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


def _loss(hidden: Tensor, weight: Tensor, labels: Tensor, **settings: Any) -> Tensor:
    out: Tensor = _Loss.apply(  # type: ignore[no-untyped-call]
        hidden, weight, labels, settings
    )
    return out


_STAND_INS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.linear: _linear,
    F.scaled_dot_product_attention: _attention,
    linear_cross_entropy: _loss,
    causal_blocks: _causal,
    flex_documents: _packed,
    relu2: _relu2,
}


class _OfMembers(torch.autograd.Function):
    """A function that is only ever computed by its rule for ``vmap``.

    The rule sees plain tensors with an axis of members, and what it does with them is recorded for
    the backward as it is.
    """

    @staticmethod
    def forward(*args: Any) -> Any:
        raise RuntimeError("called without members; use StackedKernels under torch.vmap only")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""


class _Attention(_OfMembers):
    """Members are further rows of the batch."""

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        settings: dict[str, Any],
    ) -> tuple[Tensor, int]:
        members, ndim = info.batch_size, query.ndim - (in_dims[0] is not None)
        q, k, v = (
            _with_members(x, dim, members).flatten(0, 1)
            for x, dim in zip((query, key, value), in_dims[:3], strict=True)
        )
        if mask is not None and (in_dims[3] is not None or mask.ndim == ndim):
            mask = _with_members(mask, in_dims[3], members)
            while mask.ndim <= ndim:
                mask = mask.unsqueeze(1)
            mask = mask.expand(-1, len(q) // members, *mask.shape[2:]).flatten(0, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **settings)
        return out.view(members, -1, *out.shape[1:]), 0


class _Loss(_OfMembers):
    """One member after another: the logits of one are what fits the caches."""

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        settings: dict[str, Any],
    ) -> tuple[Tensor, int]:
        of_each = (
            _with_members(x, dim, info.batch_size).unbind()
            for x, dim in zip((hidden, weight, labels), in_dims[:3], strict=True)
        )
        losses = [linear_cross_entropy(*one, **settings) for one in zip(*of_each, strict=True)]
        return torch.stack(losses), 0


def _with_members(x: Tensor, dim: int | None, members: int) -> Tensor:
    """Return ``x`` with the axis of members first; what they share is repeated without a copy."""
    return x.expand(members, *x.shape) if dim is None else x.movedim(dim, 0)
