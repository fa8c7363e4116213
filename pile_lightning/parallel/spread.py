"""Tensors that are whole on a rank, and their parts on several: one made from the other."""

from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

__all__ = ["gather", "spread_like"]


def spread_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return ``tensor``, whole on every rank, as ``like`` is spread; nothing is communicated."""
    if not isinstance(like, DTensor):
        return tensor
    if isinstance(tensor, DTensor):
        return tensor.redistribute(placements=like.placements)
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def gather(state: Any) -> Any:
    """Return nested ``state`` with every sharded tensor whole, in host memory of rank 0.

    All ranks call it; on the others, what was sharded is None.
    """

    def whole(tensor: DTensor) -> Tensor | None:
        full = tensor.full_tensor()
        return full.cpu() if dist.get_rank() == 0 else None

    return tree_map_only(DTensor, whole, state)
