"""The norm of all gradients, whichever ranks hold their parts, and clipping by it."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import FSDPStrategy, Strategy
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

__all__ = ["clip", "clip_by_norm", "global_norm"]


@torch.no_grad()
def global_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Return the 2-norm of all ``gradients`` as one vector, on the device, the same on all ranks.

    Gradients that every rank has whole must be equal there, as they are after a backward.

    Example:
        >>> global_norm([torch.tensor([3.0]), torch.tensor([4.0])])
        tensor(5.)
    """
    parts: dict[tuple[Any, tuple[int, ...]], list[Tensor]] = defaultdict(list)
    for gradient in gradients:
        if isinstance(gradient, DTensor):
            if any(each.is_partial() for each in gradient.placements):
                gradient = gradient.redistribute(
                    placements=[_summed(each) for each in gradient.placements]
                )
            over = tuple(n for n, each in enumerate(gradient.placements) if not each.is_replicate())
            parts[gradient.device_mesh, over].append(gradient.to_local())
        else:
            parts[None, ()].append(gradient)
    total: Tensor | None = None
    for (mesh, over), tensors in parts.items():
        norms = torch.stack(torch._foreach_norm(tensors, dtype=torch.float32))
        square = norms.square().sum()
        for dimension in over:
            dist.all_reduce(square, group=mesh.get_group(dimension))
        total = square if total is None else total + square
    return torch.zeros(()) if total is None else total.sqrt()


@torch.no_grad()
def clip_by_norm(gradients: Iterable[Tensor], largest: float) -> Tensor:
    """Scale ``gradients`` in place so that their common norm is at most ``largest``.

    Returns:
        The norm before.
    """
    gradients = list(gradients)
    norm = global_norm(gradients)
    # without a look at the number, which would wait for the device
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)
    parts = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    if parts:
        torch._foreach_mul_(parts, scale)
    return norm


def clip(
    gradients: Iterable[Tensor], largest: float, *, algorithm: str, strategy: Strategy
) -> Tensor | None:
    """Clip ``gradients`` in place, as the trainer is told to.

    Args:
        gradients: Of all parameters.
        largest: Norm of all of them together, or size of each number.
        algorithm: ``norm`` or ``value``.
        strategy: The trainer's.

    Returns:
        The norm before, where it was needed.
    """
    if algorithm == "value":
        for gradient in gradients:
            part = gradient.to_local() if isinstance(gradient, DTensor) else gradient
            part.clamp_(-largest, largest)
        return None
    if isinstance(strategy, FSDPStrategy):  # gradients are parts, and only it knows of what
        norm: Tensor = strategy.model.clip_grad_norm_(largest)
        return norm
    return clip_by_norm(gradients, largest)


def _summed(placement: Any) -> Any:
    return Replicate() if placement.is_partial() else placement
