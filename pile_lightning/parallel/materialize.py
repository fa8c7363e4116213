"""Weights for a network that was built without any: the same numbers, however they are spread.

A parameter that is spread over ranks is drawn whole on each of them, one parameter at a time, and
each keeps its part. So a seed means the same weights for every strategy and number of ranks, which
no generator that each rank draws its own part from can give.
"""

from typing import Any

import torch
from torch import Tensor, nn
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
def materialize(network: nn.Module, device: torch.device) -> None:
    """Give a network on the meta device memory on ``device`` and weights.

    Args:
        network: Built on the meta device, sharded or not, with a method ``reset_parameters``.
        device: Where it is to be.

    Raises:
        ValueError: Where ``reset_parameters`` leaves a weight without a value.
    """
    network.to_empty(device=device)
    for parameter in network.parameters():
        _local(parameter).fill_(torch.nan)
    with _WholeDraws():  # type: ignore[no-untyped-call]
        network.reset_parameters()  # type: ignore[operator]
    for name, parameter in network.named_parameters():
        if _local(parameter).isnan().any():
            raise ValueError(
                f"{type(network).__name__}.reset_parameters leaves {name} without a value; let it "
                f"fill all weights, those of its parts too, or give it another name"
            )


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
