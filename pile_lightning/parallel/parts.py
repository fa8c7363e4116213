"""What each rank holds of a whole, brought to rank 0 tensor by tensor: no two need room there."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map_only

__all__ = ["parts_of_ranks"]


@dataclass(frozen=True)
class _Announced:
    """A tensor that is to be sent."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def parts_of_ranks(part: Any, device: torch.device) -> list[Any]:
    """Return the parts of all ranks, in their order, on rank 0; on the others this rank's alone.

    A collective of all ranks. Tensors of other ranks come to the memory of the host.

    Args:
        part: Nested data with tensors, none of them on the meta device.
        device: What the ranks can send from.

    Example:
        >>> parts_of_ranks({"weight": 1}, torch.device("cpu"))  # one process
        [{'weight': 1}]
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [part]
    is_first = dist.get_rank() == 0
    announced = None
    if not is_first:
        announced = tree_map_only(Tensor, lambda t: _Announced(tuple(t.shape), t.dtype), part)
    of_ranks: list[Any] = [None] * dist.get_world_size()
    dist.gather_object(announced, of_ranks if is_first else None)
    if not is_first:
        tree_map_only(Tensor, lambda t: dist.send(t.detach().to(device).contiguous(), 0), part)
        return [part]
    return [part] + [_received(of_ranks[rank], rank, device) for rank in range(1, len(of_ranks))]


def _received(announced: Any, rank: int, device: torch.device) -> Any:
    def receive(told: _Announced) -> Tensor:
        room = torch.empty(told.shape, dtype=told.dtype, device=device)
        dist.recv(room, rank)
        return room.cpu()

    return tree_map_only(_Announced, receive, announced)
