"""Activation checkpointing of a network's blocks, as the plan assumes it."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

__all__ = ["CHECKPOINTING", "Checkpointing", "checkpoint_blocks"]

Checkpointing = Literal["none", "selective", "full"]

CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "selective", "full")
"""Keep all activations; only those of products and attention; only what each block is given."""

_aten = torch.ops.aten
_KEPT = {
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
}


def checkpoint_blocks(network: nn.Module, kind: Checkpointing) -> None:
    """Let each of ``network.blocks`` compute again in the backward what it does not keep.

    Raises:
        ValueError: For a network without blocks.
    """
    if kind == "none":
        return
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise ValueError(
            f"activation_checkpointing={kind!r}: {type(network).__name__} has no list `blocks`; "
            f"give it one, or set activation_checkpointing to none"
        )
    settings: dict[str, Any] = {"use_reentrant": False}
    if kind == "selective":
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    for block in blocks:
        _wrap(block, settings)


def _wrap(block: nn.Module, settings: dict[str, Any]) -> None:
    forward: Callable[..., Any] = block.forward

    def again(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, **settings, **kwargs)

    block.forward = again


def _policy(ctx: Any, func: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if func in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
