"""The head whose rows are spread over tensor-parallel peers, each with a part of the vocabulary.

A part of the logits says neither the largest nor the sum of a row, so that the peers exchange these
two numbers a row, and never the logits (Shoeybi et al., Megatron-LM, 2019).
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
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

    def locate(self, ids: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
        """Return the row of each id among this rank's ``num_rows``, and whether it is one of them.

        The row of an id that a peer has is 0. Where there are no peers, none is looked for: an id
        outside the vocabulary is a mistake that is to be raised, not another's.
        """
        rows = ids - self.start
        inside = torch.ones_like(ids, dtype=torch.bool)
        if self.group is not None:
            inside = (rows >= 0) & (rows < num_rows)
            rows = rows.masked_fill(~inside, 0)
        return rows, inside

    def combine(self, log_sum: Tensor, label_logit: Tensor) -> tuple[Tensor, Tensor]:
        """Make of each peer's log-sum-exp and logit of the label, 0 where not its own, a row's."""
        if self.group is None:
            return log_sum, label_logit
        largest = self.max(log_sum.clone())
        sums = self.sum(torch.stack(((log_sum - largest).exp(), label_logit)))
        return largest + sums[0].log(), sums[1]


WHOLE = Vocabulary()
"""All ids on every rank."""


def split_vocabulary(weight: Tensor) -> tuple[Tensor, Vocabulary]:
    """Return this rank's rows of the head's matrix, and which ids they are of.

    Example:
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
