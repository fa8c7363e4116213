"""The softmax between the two products of a head, over a chunk of rows whose logits are at hand.

Two ways with one interface. Both read logits in the products' type and compute in float32 or wider;
both leave the gradient where the logits were. Compiled, each of the two passes reads the logits
once and keeps nothing wider; eager, every operation is a pass of its own over float32 numbers.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["CompiledSoftmax", "EagerSoftmax", "compiled_passes"]


class EagerSoftmax:
    """Operation by operation, in one buffer that all chunks share.

    Args:
        logits: Room for the logits of the largest chunk.
        wide: The type that is computed in.

    Example:
        >>> z, column, inside = torch.zeros(1, 2), torch.tensor([[1]]), torch.ones(1, 1)
        >>> EagerSoftmax(z, torch.float32).read(z, column, inside)
        (tensor([[0.6931]]), tensor([[0.]]))
    """

    def __init__(self, logits: Tensor, wide: torch.dtype) -> None:
        self.buffer = logits if logits.dtype == wide else torch.empty_like(logits, dtype=wide)

    def read(self, z: Tensor, column: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-sum-exp and the label's logit (rows, 1) of the logits ``z`` (rows, vocab).

        Args:
            z: Read, and where it is wide already, used up.
            column: Where the label stands (rows, 1).
            inside: 1 where it stands there, 0 where another rank has it (rows, 1).
        """
        e = self.buffer[: len(z)]
        if e.dtype != z.dtype:
            e.copy_(z)
        self.largest = e.amax(-1, keepdim=True)
        label_logit = e.gather(1, column) * inside
        self.e = e.sub_(self.largest).exp_()
        return self.largest + e.sum(-1, keepdim=True).log(), label_logit

    def differentiate(
        self, z: Tensor, column: Tensor, inside: Tensor, log_sum: Tensor, scale: Tensor
    ) -> None:
        """Put into ``z`` the gradient by the logits of ``scale * (log_sum - label_logit)``.

        Args:
            z: The logits that were read last.
            column: As they were read with.
            inside: As they were read with.
            log_sum: Of the whole rows, where other ranks have parts of them (rows, 1).
            scale: A factor for each row (rows, 1).
        """
        share = (self.largest - log_sum).exp()
        self.e.scatter_add_(1, column, -inside / share)
        torch.mul(self.e, share * scale, out=z)


class CompiledSoftmax:
    """The same in two compiled passes."""

    def __init__(self) -> None:
        self._read, self._differentiate = compiled_passes()

    def read(self, z: Tensor, column: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-sum-exp and the label's logit of each row of ``z``."""
        out: tuple[Tensor, Tensor] = self._read(z, column, inside)
        return out

    def differentiate(
        self, z: Tensor, column: Tensor, inside: Tensor, log_sum: Tensor, scale: Tensor
    ) -> None:
        """Put the gradient into ``z``."""
        self._differentiate(z, column, inside, log_sum, scale)


@cache
def compiled_passes() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return ``read`` and ``differentiate``, compiled."""
    # not where the module is imported: that would import the compiler
    return torch.compile(_read, dynamic=False), torch.compile(_differentiate, dynamic=False)


def _read(z: Tensor, column: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    wide = z.to(inside.dtype)
    return wide.logsumexp(-1, keepdim=True), wide.gather(1, column) * inside


def _differentiate(
    z: Tensor, column: Tensor, inside: Tensor, log_sum: Tensor, scale: Tensor
) -> None:
    p = (z.to(inside.dtype) - log_sum).exp()
    at_label = torch.arange(z.shape[1], device=z.device) == column
    z.copy_((p - at_label * inside) * scale)
