"""The mean loss of a token of the whole global batch, which a process sees a part of at a time.

A mean of the means of micro-batches or ranks weighs a token by the company it keeps: where rows
hold different numbers of ignored labels, the gradient was 40 % off in a small case. So sums are
back-propagated, tokens are counted as they pass, and the gradients are scaled once before the step.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from lightning import Trainer
from torch import Tensor

from pile_lightning.loop_state import is_within_step
from pile_lightning.optim import local
from pile_lightning.parallel import num_step_ranks

__all__ = ["TokenMean"]


class TokenMean:
    """Sums since the last log or step, on the device: reading one would wait for it.

    Args:
        trainer: Says over how many ranks and micro-batches a step is spread.
        device: Where the losses are.
        state: Of a run before, as ``state_dict`` returned it.
    """

    def __init__(
        self, trainer: Trainer, device: torch.device, state: Mapping[str, float] | None = None
    ) -> None:
        # float32 sums lose digits after some ten million tokens; Apple's GPUs have no float64
        floats = torch.float32 if device.type == "mps" else torch.float64
        self.nats = torch.zeros((), dtype=floats, device=device)
        self.num_tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.step_tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.has_tokens = False
        """Whether tokens were counted since the last log."""
        self.has_batches = False
        """Whether batches were, in their place."""
        self.trainer = trainer
        self.strategy = trainer.strategy
        self.num_ranks = num_step_ranks(trainer)
        self._before_step: Tensor | None = None
        # what all ranks had, on one of them
        if state is not None and (self.num_ranks == 1 or trainer.is_global_zero):
            self.nats.fill_(state["nats"])
            self.num_tokens.fill_(int(state["num_tokens"]))

    @property
    def num_parts(self) -> int:
        """Micro-batches and ranks of a step; a callback may change how many there are."""
        return int(self.trainer.accumulate_grad_batches) * self.num_ranks

    def add(
        self,
        loss_sum: Tensor,
        num_tokens: Tensor,
        *,
        more: Tensor | None = None,
        alone: bool = False,
    ) -> Tensor:
        """Return what to back-propagate: the mean loss, or the sum where the step is shared.

        Args:
            loss_sum: Over the predicted tokens of a batch.
            num_tokens: How many these are.
            more: A further sum, which is back-propagated and no part of the loss that is told.
            alone: Return the mean in any case; ``divide`` is not called then.
        """
        self.has_tokens = True
        if self.trainer.accumulate_grad_batches > 1 and not is_within_step(self.trainer):
            self._before_step = self._sums()
        self.nats.add_(loss_sum.detach())
        self.num_tokens.add_(num_tokens)
        if more is not None:
            loss_sum = loss_sum + more
        # alone and in one piece, a batch is the global batch, and its own count will do
        if alone or self.num_parts == 1:
            return loss_sum / num_tokens.clamp(min=1)
        self.step_tokens.add_(num_tokens)
        return loss_sum

    def observe(self, loss: Tensor) -> None:
        """Count the loss of a batch as that of one token, where no tokens are counted."""
        if not self.has_tokens:
            self.nats.add_(loss.detach())
            self.num_tokens.add_(1)
            self.has_batches = True

    @property
    def has_some(self) -> bool:
        """Whether there is anything to take."""
        return self.has_tokens or self.has_batches

    def divide(self, gradients: Sequence[Tensor]) -> None:
        """Divide the gradients of a step by the tokens of the global batch."""
        if self.num_parts == 1:
            return
        num_tokens = self._over_ranks(self.step_tokens).clamp(min=1)
        # undo the means that Lightning takes over micro-batches and the strategy over ranks
        if gradients:  # a callback that leaves a step out drops them
            torch._foreach_mul_([local(g) for g in gradients], self.num_parts / num_tokens)
        self.step_tokens.zero_()

    def take(self) -> float:
        """Return the mean loss of a token since the last time, over all ranks."""
        sums = self._sums()
        self.nats.zero_()
        self.num_tokens.zero_()
        self.has_tokens = self.has_batches = False
        nats, num_tokens = self._over_ranks(sums).tolist()
        return float(nats / max(1, num_tokens))

    def state_dict(self) -> dict[str, float]:
        """Return the sums since the last time by the last finished step, over all ranks."""
        sums = self._before_step if is_within_step(self.trainer) else self._sums()
        nats, num_tokens = self._over_ranks(self._sums() if sums is None else sums).tolist()
        return {"nats": nats, "num_tokens": num_tokens}

    def _sums(self) -> Tensor:
        return torch.stack([self.nats, self.num_tokens.to(self.nats.dtype)])

    def _over_ranks(self, sums: Tensor) -> Tensor:
        """Return sums over the ranks that share the step."""
        if self.num_ranks == 1:
            return sums
        return cast(Tensor, self.strategy.reduce(sums.clone(), reduce_op="sum"))
