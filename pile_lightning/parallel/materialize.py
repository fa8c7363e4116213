"""Weights for a network that was built without any: the same numbers, however they are spread.

A parameter that is spread over ranks is drawn whole on each of them, one parameter at a time, and
each keeps its part. So a seed means the same weights for every strategy and number of ranks, which
no generator that each rank draws its own part from can give.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["materialize"]

_DRAWS = {
    torch.ops.aten.uniform_.default,
    torch.ops.aten.normal_.default,
    torch.ops.aten.random_.default,
    getattr(torch.ops.aten.random_, "from"),
    torch.ops.aten.bernoulli_.float,
    torch.ops.aten.exponential_.default,
}


class _WholeDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draws random numbers for a whole parameter where this rank holds a part."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        target = args[0] if args else None
        if func not in _DRAWS or not isinstance(target, DTensor):
            return func(*args, **(kwargs or {}))
        whole = torch.empty(target.shape, dtype=target.dtype, device=target.to_local().device)
        func(whole, *args[1:], **(kwargs or {}))
        part = distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None)
        target.to_local().copy_(part.to_local())
        return target


@torch.no_grad()
def materialize(network: nn.Module, device: torch.device, reset: Callable[[], None]) -> None:
    """Give a network on the meta device memory on ``device`` and weights.

    Args:
        network: Built on the meta device, sharded or not.
        device: Where it is to be.
        reset: Fills all its weights.
    """
    network.to_empty(device=device)
    with _WholeDraws():  # type: ignore[no-untyped-call]
        reset()
