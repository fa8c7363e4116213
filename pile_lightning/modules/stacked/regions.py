"""Blocks of stacked networks, compiled: one graph of all members serves all layers.

The compiler traces nothing that is called from within ``vmap``. So a block steps out of it, to
tensors that have an axis of members like any other, and what is compiled there has a ``vmap``
inside.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pile_lightning.nn import StackedKernels
from pile_lightning.parallel import for_many_shapes

__all__ = ["compile_stacked", "compiled", "follow_mode"]


def follow_mode(copied: nn.Module, original: nn.Module) -> None:
    """Let each part of a copy train or not, as the original's does now."""
    for part, other in zip(copied.modules(), original.modules(), strict=True):
        if part.training != other.training:
            part.training = other.training


def compile_stacked(block: nn.Module) -> None:
    """Let ``block`` compute, wherever ``vmap`` calls it, in a graph of all members; in place."""
    # on the instance: a wrapper around the block would change the names of its parameters
    block.forward = _CompiledForward(block)


class _CompiledForward:
    """The forward of a block whose parameters and inputs ``vmap`` has given an axis of members."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        # as it was: what is traced must not come back here
        self.as_written = copy.deepcopy(block)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        follow_mode(self.as_written, self.block)
        parameters = dict(self.block.named_parameters())
        leaves, spec = pytree.tree_flatten((parameters, args, kwargs))
        return _Graph.apply(self.as_written, spec, *leaves)  # type: ignore[no-untyped-call]


class _Graph(torch.autograd.Function):
    """Ever only computed by its rule for ``vmap``, whose operations are recorded as they are."""

    @staticmethod
    def forward(*args: Any) -> Any:
        raise RuntimeError("called without members; a stacked block needs torch.vmap around it")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], block: nn.Module, spec: Any, *leaves: Any
    ) -> tuple[Any, int]:
        return compiled()(block, spec, in_dims[2:], leaves), 0


@cache
def compiled() -> Callable[..., Any]:
    """Return what computes a block of all members."""
    # not where the module is imported: that would import the compiler
    return torch.compile(_all_members, dynamic=False, **for_many_shapes())


def _all_members(
    block: nn.Module, spec: Any, in_dims: tuple[int | None, ...], leaves: tuple[Any, ...]
) -> Any:
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def one(*tensors: Tensor) -> Any:
        filled = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        parameters, args, kwargs = pytree.tree_unflatten(filled, spec)
        return torch.func.functional_call(block, parameters, args, kwargs)

    dims = tuple(in_dims[place] for place in places)
    with StackedKernels():  # the one around the outer vmap is off where its rules are computed
        return torch.vmap(one, in_dims=dims, randomness="different")(*(leaves[p] for p in places))
