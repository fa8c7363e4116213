"""The softmax between the two products of a head, over a chunk of rows whose logits are at hand.

Two ways with one interface. Both read logits in the products' type and compute in float32 or wider;
both leave the gradient where the logits were. Compiled, each of the two passes reads the logits
once and keeps nothing wider; eager, every operation is a pass of its own over float32 numbers.

Logits may be capped, which bends each of them and the gradient with it; a z-loss adds the square of
the log-sum-exp to a row's loss, and a multiple of the softmax to its gradient.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from pile_lightning.nn.logit_cap import cap_logits

__all__ = ["CompiledSoftmax", "EagerSoftmax", "compiled_passes"]


class EagerSoftmax:
    """Operation by operation, in one buffer that all chunks share.

    Args:
        logits: Room for the logits of the largest chunk.
        wide: The type that is computed in.
        cap: Bound of the logits, see ``cap_logits``; ``None`` for none.
        z_loss: Weight of the squared log-sum-exp in a row's loss.

    Example:
        >>> z, column, inside = torch.zeros(1, 2), torch.tensor([[1]]), torch.ones(1, 1)
        >>> EagerSoftmax(z, torch.float32).read(z, column, inside)
        (tensor([[0.6931]]), tensor([[0.]]))
    """

    def __init__(
        self,
        logits: Tensor,
        wide: torch.dtype,
        *,
        cap: float | None = None,
        z_loss: float = 0.0,
    ) -> None:
        # the slope of a cap is told by the logits before it, which are then not used up
        self.keeps_logits = logits.dtype != wide or cap is not None
        self.buffer = torch.empty_like(logits, dtype=wide) if self.keeps_logits else logits
        self.cap, self.z_loss = cap, z_loss

    def read(self, z: Tensor, column: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-sum-exp and the label's logit (rows, 1) of the logits ``z`` (rows, vocab).

        Args:
            z: Read, and where it is wide already and has no cap, used up.
            column: Where the label stands (rows, 1).
            inside: 1 where it stands there, 0 where another rank has it (rows, 1).
        """
        e = self.buffer[: len(z)]
        if self.keeps_logits:
            e.copy_(z)
        if self.cap is not None:
            e.div_(self.cap).tanh_().mul_(self.cap)
        self.largest = e.amax(-1, keepdim=True)
        label_logit = e.gather(1, column) * inside
        self.e = e.sub_(self.largest).exp_()
        return self.largest + e.sum(-1, keepdim=True).log(), label_logit

    def differentiate(
        self, z: Tensor, column: Tensor, inside: Tensor, log_sum: Tensor, scale: Tensor
    ) -> None:
        """Put into ``z`` the gradient by the logits of ``scale`` times a row's loss.

        Args:
            z: The logits that were read last.
            column: As they were read with.
            inside: As they were read with.
            log_sum: Of the whole rows, where other ranks have parts of them (rows, 1).
            scale: A factor for each row (rows, 1).
        """
        e, share = self.e, (self.largest - log_sum).exp()
        if self.z_loss:
            share *= 1 + 2 * self.z_loss * log_sum
        at_label = (e.gather(1, column) * share - inside) * scale
        if self.cap is None:
            torch.mul(e, share * scale, out=z).scatter_(1, column, at_label.to(z.dtype))
            return
        e.mul_(share * scale).scatter_(1, column, at_label)
        bent = z.to(e.dtype, copy=True).div_(self.cap).tanh_()
        z.copy_(e.addcmul_(e, bent.square_(), value=-1))


class CompiledSoftmax:
    """The same in two compiled passes.

    Args:
        cap: As for ``EagerSoftmax``.
        z_loss: As for ``EagerSoftmax``.
    """

    def __init__(self, *, cap: float | None = None, z_loss: float = 0.0) -> None:
        self._read, self._differentiate = compiled_passes(cap, z_loss)

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
def compiled_passes(
    cap: float | None, z_loss: float
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return ``read`` and ``differentiate``, compiled."""
    # not where the module is imported: that would import the compiler
    read = torch.compile(partial(_read, cap=cap), dynamic=False)
    differentiate = partial(_differentiate, cap=cap, z_loss=z_loss)
    return read, torch.compile(differentiate, dynamic=False)


def _read(z: Tensor, column: Tensor, inside: Tensor, *, cap: float | None) -> tuple[Tensor, Tensor]:
    wide = cap_logits(z.to(inside.dtype), cap)
    return wide.logsumexp(-1, keepdim=True), wide.gather(1, column) * inside


def _differentiate(
    z: Tensor,
    column: Tensor,
    inside: Tensor,
    log_sum: Tensor,
    scale: Tensor,
    *,
    cap: float | None,
    z_loss: float,
) -> None:
    wide = cap_logits(z.to(inside.dtype), cap)
    p = (wide - log_sum).exp()
    if z_loss:
        p = p * (1 + 2 * z_loss * log_sum)
    at_label = torch.arange(z.shape[1], device=z.device) == column
    gradient = (p - at_label * inside) * scale
    if cap is not None:
        gradient = gradient * (1 - (wide / cap).square())
    z.copy_(gradient)
