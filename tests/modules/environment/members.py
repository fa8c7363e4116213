"""Members that fail."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.modules import CausalLM, LanguageModule
from pile_lightning.nn import (
    DecoderConfig,
    NetworkConfig,
    await_weights,
    cross_entropy_sum,
    will_follow,
)
from pile_lightning.optim import OptimizerConfig


class Breaks(CausalLM):
    """Its forward raises from a step on."""

    def __init__(self, *, at: int = 3, **settings):
        super().__init__(**settings)
        self.at = at
        self.calls = 0

    def loss_sum(self, batch):
        self.calls += 1
        if self.calls > self.at:
            raise RuntimeError(f"broken at call {self.calls}")
        return super().loss_sum(batch)


class BreaksOnOneRank(Breaks):
    """Its forward raises on the last rank alone."""

    def loss_sum(self, batch):
        if self.trainer.global_rank + 1 < self.trainer.world_size:
            return CausalLM.loss_sum(self, batch)
        return super().loss_sum(batch)


class Diverges(Breaks):
    """Its loss is not a number from a step on."""

    def loss_sum(self, batch):
        self.calls += 1
        loss = CausalLM.loss_sum(self, batch)
        return loss * torch.nan if self.calls > self.at else loss


class Hiccups(Breaks):
    """Its loss is not a number once."""

    def loss_sum(self, batch):
        self.calls += 1
        loss = CausalLM.loss_sum(self, batch)
        return loss * torch.inf if self.calls == self.at else loss


class Backwards(CausalLM):
    """Another task: what came before each token."""

    def loss_sum(self, batch):
        logits = self(batch)
        before = batch["input_ids"].roll(1, dims=1)
        before = before.masked_fill(batch["labels"] == IGNORE_INDEX, IGNORE_INDEX)
        before[:, 0] = IGNORE_INDEX
        return cross_entropy_sum(logits, before)


class Twice(CausalLM):
    """Its loss counts twice."""

    def loss_sum(self, batch):
        return 2 * super().loss_sum(batch)


@dataclass(frozen=True, kw_only=True)
class ElsewhereConfig(NetworkConfig):
    """Reads its weights from somewhere, but where they are to follow or there is no memory."""

    reads: ClassVar[list[str]] = []

    def build(self, *, vocab_size, max_seq_len):
        network = DecoderConfig(d_model=32, num_layers=1).build(
            vocab_size=vocab_size, max_seq_len=max_seq_len
        )
        if will_follow() or torch.get_default_device().type == "meta":
            await_weights(network, "the weights never came")
        else:
            self.reads.append("read")
        return network


@dataclass(frozen=True, kw_only=True)
class SGDConfig(OptimizerConfig):
    """Steps by the gradient itself."""

    lr: float = 0.1

    def build(self, network):
        return torch.optim.SGD(network.parameters(), lr=self.lr)


class BreaksScored(CausalLM):
    """It cannot be scored from a validation batch on."""

    def __init__(self, *, at: int = 0, **settings):
        super().__init__(**settings)
        self.at = at
        self.scored = 0

    def token_nll(self, batch):
        self.scored += 1
        if self.scored > self.at:
            raise RuntimeError(f"cannot be scored {self.scored}")
        return super().token_nll(batch)


class BreaksScoredOnOneRank(BreaksScored):
    """It cannot be scored on the last rank alone."""

    def token_nll(self, batch):
        if self.trainer.global_rank + 1 < self.trainer.world_size:
            return CausalLM.token_nll(self, batch)
        return super().token_nll(batch)


class OwnStep(CausalLM):
    """It has a training step that an environment would not call."""

    def training_step(self, batch, batch_idx):
        return self.loss_sum(batch)


class Talks(CausalLM):
    """It logs while it computes its loss."""

    def loss_sum(self, batch):
        loss = super().loss_sum(batch)
        self.log("train/twice", 2.0)
        self.log_dict({"mood": 1.0})
        return loss


class NoLogits(LanguageModule):
    """It has a loss and no more."""

    def __init__(self, network: NetworkConfig = DecoderConfig(), **settings):
        super().__init__(network, **settings)

    def loss_sum(self, batch):
        return self.built_network(batch["input_ids"]).sum()

    token_nll = loss_sum
