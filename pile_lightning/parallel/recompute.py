"""Activation checkpointing: keep less of the forward, and compute it again in the backward.

``full`` keeps what a block reads; ``selective`` keeps the results of matrix products and of
attention as well, and computes again only what is cheap: norms, activations, rotations.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from pile_lightning.parallel.blocks import blocks_of

__all__ = ["RECOMPUTE", "Recompute", "recompute_blocks"]

Recompute: TypeAlias = Literal["none", "selective", "full"]
"""How much of the forward is computed again."""

RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
"""All ways."""

_KEPT_NAMES = (
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
_KEPT = {getattr(torch.ops.aten, name).default for name in _KEPT_NAMES}
_KEPT.add(torch.ops.higher_order.flex_attention)


def recompute_blocks(network: nn.Module, how: Recompute) -> None:
    """Let each block of ``network`` keep less, in place; parameters keep their names.

    Raises:
        ValueError: For an unknown way.
    """
    if how not in RECOMPUTE:
        raise ValueError(
            f"activation_checkpointing={how!r} is unknown; choose one of {', '.join(RECOMPUTE)}"
        )
    if how == "none":
        return
    compute = _selective if how == "selective" else _full
    for block in blocks_of(network):
        # on the instance: a wrapper around the block would change the names of its parameters
        block.forward = partial(compute, block.forward)


# The compiler looks into functions of this file, and from there into ``checkpoint``. Were a block's
# forward ``partial(checkpoint, ...)`` itself, nothing of the block would be compiled.


def _full(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def _selective(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False, context_fn=_contexts, **kwargs)


def _contexts() -> Any:
    return create_selective_checkpoint_contexts(_keep)  # type: ignore[no-untyped-call]


def _keep(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
