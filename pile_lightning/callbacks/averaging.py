"""Averaged weights: scored, sampled from, saved and exported in the place of those in training.

``lightning``'s ``WeightAveraging`` copies the whole module, which a sharded one does not outlive.
"""

import math
from typing import Any, Protocol, cast, runtime_checkable

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from pile_lightning.batch import IGNORE_INDEX, TokenBatch
from pile_lightning.optim import AVERAGE, averages, ema_decay, exchange, forget, update_average

__all__ = ["AverageWeights"]


@runtime_checkable
class ScoresTokens(Protocol):
    """A module that can score each label of a batch."""

    def token_nll(self, batch: TokenBatch) -> Tensor:
        """Return the nats of each label (batch, seq), 0 where ignored."""


class AverageWeights(Callback):
    """Keep an exponential moving average of the weights; off by default.

    Training does not see it. Everything else does: validation and samples use the averaged
    weights, they are the ``state_dict`` of every checkpoint that a run can go on from (which has
    the weights in training in the optimizer's state), and the module holds them when training has
    ended. Buffers are not averaged.

    Args:
        decay: What the average keeps of itself a step, in the long run: 0.999 spans about a
            thousand steps; null for no average.
        score_raw: Score the weights in training as well, as ``val_raw/bits_per_byte`` and
            ``val_raw/loss``: validation takes twice as long.

    Raises:
        ValueError: For a decay that is none.

    Example:
        >>> AverageWeights(0.999).decay
        0.999
    """

    def __init__(self, decay: float | None = None, score_raw: bool = True) -> None:
        if decay is not None and not 0 < decay < 1:
            raise ValueError(
                f"average.decay={decay} is the share that an average keeps of itself at each step; "
                f"choose it between 0 and 1, such as 0.999, or leave it out for no average"
            )
        self.decay = decay
        self.score_raw = score_raw
        self._step = 0
        self._exchanged = False
        self._names: dict[int, list[str]] = {}
        self._sums: Tensor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a strategy under which no rank knows its parameters.

        Raises:
            ValueError: For Lightning's ``FSDPStrategy``.
        """
        if stage == "fit" and self.decay and isinstance(trainer.strategy, FSDPStrategy):
            raise ValueError(
                f"average.decay={self.decay}: {type(trainer.strategy).__name__} flattens "
                f"parameters, and what it saves could not be exchanged for an average; use "
                f"pile_lightning.ShardedStrategy"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from the weights in training of a checkpoint that holds averaged ones.

        Raises:
            ValueError: For parameters of 16 bits, which an average would not move.
        """
        self._step, self._exchanged = trainer.global_step, False
        self._names = {}
        _reshard(pl_module)
        for name, parameter in pl_module.named_parameters(remove_duplicate=False):
            self._names.setdefault(id(parameter), []).append(name)
            if self.decay and parameter.requires_grad and parameter.element_size() < 4:
                raise ValueError(
                    f"average.decay={self.decay}: {name} is in {parameter.dtype}, too coarse for "
                    f"the small steps of an average; keep float32 weights, as trainer.precision "
                    f"bf16-mixed does"
                )
        for optimizer in trainer.optimizers:
            exchange(optimizer)
            if self.decay is None:
                forget(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take an optimizer step into the average."""
        if self.decay is None or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        for optimizer in trainer.optimizers:
            update_average(optimizer, decay=ema_decay(self._step, decay=self.decay))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the averaged weights in the module."""
        self._put(trainer, pl_module, averaged=True)

    # -- scoring ----------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the averaged weights be scored."""
        if self._scores(trainer):
            self._put(trainer, pl_module, averaged=True)
        scorable = self.score_raw and isinstance(pl_module, ScoresTokens)
        if self._scores(trainer) and scorable:
            # float32 sums lose digits after some ten million tokens; Apple's GPUs have no float64
            floats = torch.float32 if pl_module.device.type == "mps" else torch.float64
            self._sums = torch.zeros(3, dtype=floats, device=pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: TokenBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the batch by the weights in training, too."""
        if self._sums is None:
            return
        self._put(trainer, pl_module, averaged=False)
        with trainer.precision_plugin.val_step_context():
            nats = cast(ScoresTokens, pl_module).token_nll(batch).sum(dtype=self._sums.dtype)
        num_tokens = (batch["labels"] != IGNORE_INDEX).sum()
        num_bytes = batch["num_bytes"].sum() if "num_bytes" in batch else num_tokens * 0
        self._sums += torch.stack([nats, num_tokens, num_bytes])
        self._put(trainer, pl_module, averaged=True)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the weights in training score."""
        if self._sums is None:
            return
        nats, num_tokens, num_bytes = trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
        scores = {"val_raw/loss": nats / max(1, num_tokens)}
        if num_bytes:
            scores["val_raw/bits_per_byte"] = nats / math.log(2) / num_bytes
        # ranks have equal numbers: sync_dist averages them, and is asked for
        pl_module.log_dict(scores, sync_dist=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the weights in training."""
        if self._scores(trainer):
            self._put(trainer, pl_module, averaged=False)
        self._sums = None

    def _scores(self, trainer: Trainer) -> bool:
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        return fitting and self.decay is not None

    def _put(self, trainer: Trainer, pl_module: LightningModule, *, averaged: bool) -> None:
        """Put the averaged weights, or those in training, into the module."""
        if self.decay is None or averaged == self._exchanged:
            return
        _reshard(pl_module)
        for optimizer in trainer.optimizers:
            exchange(optimizer)
        self._exchanged = averaged

    # -- saving -----------------------------------------------------------------------------------

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make the averaged weights those of the checkpoint; nothing is copied."""
        if self.decay is None or self._exchanged or "optimizer_states" not in checkpoint:
            return
        weights = checkpoint["state_dict"]
        for place, optimizer in enumerate(trainer.optimizers):
            saved = checkpoint["optimizer_states"][place]
            known, states = averages(optimizer), dict(saved["state"])
            order = [p for group in optimizer.param_groups for p in group["params"]]
            for number, parameter in enumerate(order):
                if parameter in known:
                    weights.update(dict.fromkeys(self._names[id(parameter)], known[parameter]))
                    states[number] = {**states[number], AVERAGE: parameter.detach()}
            checkpoint["optimizer_states"][place] = {**saved, "state": states}


def _reshard(pl_module: LightningModule) -> None:
    """Let FSDP2 give back what it has gathered, which would outlive an exchange of the parts."""
    for module in pl_module.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
