"""The head whose rows are spread over tensor-parallel peers, each with a part of the vocabulary.

A part of the logits says neither the largest nor the sum of a row, so that the peers exchange these
two numbers a row, and never the logits (Shoeybi et al., Megatron-LM, 2019).
"""

from dataclasses import dataclass
from typing import Any, cast

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

__all__ = ["WHOLE", "Vocabulary", "project", "split_vocabulary"]


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Which ids this rank has the logits of, and with whom it has all."""

    start: int = 0
    """The first of them."""
    group: Any = None
    """The peers; None where this rank has all ids."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up over the peers, in place."""
        if self.group is not None:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def max(self, tensor: Tensor) -> Tensor:
        """Take the largest over the peers, in place."""
        if self.group is not None:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self.group)
        return tensor


WHOLE = Vocabulary()
"""All ids on every rank."""


def split_vocabulary(weight: Tensor) -> tuple[Tensor, Vocabulary]:
    """Return this rank's rows of the head's matrix, and which ids they are of.

    Example:
        >>> import torch
        >>> split_vocabulary(torch.ones(4, 2))[1] is WHOLE
        True
    """
    if not isinstance(weight, DTensor):
        return weight, WHOLE
    mesh = weight.device_mesh
    each = -(-weight.shape[0] // mesh.size())
    start = min(mesh.get_local_rank() * each, weight.shape[0])
    return weight.to_local(), Vocabulary(start=start, group=mesh.get_group())


def project(hidden: Tensor, weight: Tensor) -> Tensor:
    """Compute the logits ``hidden @ weight.T`` (..., vocab), whole on every rank."""
    if not isinstance(weight, DTensor):
        return F.linear(hidden, weight)
    mesh = weight.device_mesh
    everywhere = DTensor.from_local(hidden, mesh, [Replicate()], run_check=False)
    parts = cast(DTensor, F.linear(everywhere, weight))
    return parts.redistribute(placements=[Replicate()]).to_local()
