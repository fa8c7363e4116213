"""What every language module shares: configs in, network out, and a loss per predicted token.

The loss is normalised by the predicted tokens of the whole global batch. A mean of the means of
micro-batches or ranks weighs a token by the company it keeps: where rows hold different numbers of
ignored labels, the gradient was 40 % off in a small case. So back-propagate sums, count the tokens
as they pass, and scale the gradients once before the step.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pile_lightning.batch import IGNORE_INDEX, TokenBatch
from pile_lightning.config import from_plain, to_plain
from pile_lightning.metrics import BitsPerByte, Perplexity
from pile_lightning.nn import NetworkConfig
from pile_lightning.optim import OptimizerConfig, ScheduleConfig
from pile_lightning.parallel import compile_blocks, why_not_compile

__all__ = ["LanguageModule"]


class LanguageModule(LightningModule):
    """Train a network on token batches; sub-classes say what the loss of a batch is.

    Hyper-parameters are plain data in the checkpoint, also those that a sub-class adds with
    ``**kwargs`` passed on, so ``load_from_checkpoint`` works with its safe default.

    Args:
        network: Architecture; built in ``configure_model``.
        vocab_size: Number of token ids; from the command line it comes from the data.
        max_seq_len: Longest context in tokens; from the command line it comes from the data.
        optimizer: What steps the parameters.
        schedule: Factor on its learning rates as a function of the optimizer step.
        compile: Compile the network's blocks; without a C++ compiler it says so and goes on.
    """

    network: nn.Module | None

    def __init__(
        self,
        network: NetworkConfig,
        *,
        vocab_size: int,
        max_seq_len: int,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.hparams.update(to_plain(dict(self.hparams)))
        self.network_config = _config("network", network, NetworkConfig)
        self.optimizer_config = _config("optimizer", optimizer, OptimizerConfig)
        self.schedule_config = _config("schedule", schedule, ScheduleConfig)
        self.vocab_size = vocab_size
        self.max_seq_len = max_seq_len
        self.compiles = compile
        self.network = None

    @abstractmethod
    def loss_sum(self, batch: TokenBatch) -> Tensor:
        """Return the summed loss over the predicted tokens of ``batch``: what training minimises.

        Override it to change the objective; the mean over the global batch is taken for you.
        """

    @abstractmethod
    def token_nll(self, batch: TokenBatch) -> Tensor:
        """Return the nats of each label (batch, seq), 0 where ignored."""

    # -- building ---------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build the network, once; a strategy's context may place it on the meta device."""
        if self.network is not None:
            return
        self.network = self.network_config.build(
            vocab_size=self.vocab_size, max_seq_len=self.max_seq_len
        )
        if self.compiles:
            missing = why_not_compile()
            if missing is None:
                compile_blocks(self.network)
            else:
                rank_zero_info(f"Training without torch.compile: {missing}.")

    def configure_optimizers(self) -> dict[str, Any]:
        """Make the optimizer and a schedule that advances every optimizer step."""
        total = self.trainer.max_steps
        if total < 1:
            raise ValueError(
                f"trainer.max_steps={total}: schedules count optimizer steps and need to know the "
                f"last one; set trainer.max_steps"
            )
        optimizer = self.optimizer_config.build(self.built_network)
        schedule = LambdaLR(optimizer, self.schedule_config.build(total=total))
        # "step": the default would advance it once an epoch and leave a warm-up at its start
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    @property
    def built_network(self) -> nn.Module:
        """The network, built."""
        self.configure_model()
        return cast(nn.Module, self.network)

    # -- training ---------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Open the counters, which stay on the device: reading one would wait for it."""
        self._counters = _Counters(self.device)
        # alone and in one piece, a batch is the global batch, and its own count will do
        self._step_is_shared = self.trainer.world_size * self.trainer.accumulate_grad_batches > 1

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Return what to back-propagate: the mean loss, or the sum where the step is shared."""
        loss = self.loss_sum(batch)
        num_tokens = (batch["labels"] != IGNORE_INDEX).sum()
        self._counters.nats.add_(loss.detach())
        self._counters.num_tokens.add_(num_tokens)
        if not self._step_is_shared:
            return loss / num_tokens.clamp(min=1)
        self._counters.step_tokens.add_(num_tokens)
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Divide gradients by the tokens of the global batch; clipping comes after this."""
        if not self._step_is_shared:
            return
        step_tokens = self._counters.step_tokens
        num_tokens = self.trainer.strategy.reduce(step_tokens.clone(), reduce_op="sum").clamp(min=1)
        # undo the means that Lightning takes over micro-batches and the strategy over ranks
        means = self.trainer.accumulate_grad_batches * self.trainer.world_size
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        if gradients:  # a callback that leaves a step out drops them
            torch._foreach_mul_(gradients, means / num_tokens)
        step_tokens.zero_()

    def on_train_batch_end(self, outputs: Any, batch: TokenBatch, batch_idx: int) -> None:
        """Log the mean loss of the tokens since the last time, and the learning rate."""
        trainer = self.trainer
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step % trainer.log_every_n_steps:
            return
        sums = trainer.strategy.reduce(self._counters.take(), reduce_op="sum")
        nats, num_tokens = sums.tolist()
        self.log("train/loss", nats / max(1, num_tokens), prog_bar=True)
        self.log("train/lr", trainer.optimizers[0].param_groups[0]["lr"])

    # -- scoring ----------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Open the metrics, one column a domain of the data."""
        data = getattr(self.trainer, "datamodule", None)
        self.domains: tuple[str, ...] = getattr(data, "domains", None) or ("text",)
        self.bits_per_byte = BitsPerByte(num_domains=len(self.domains))
        self.perplexity = Perplexity(num_domains=len(self.domains))

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the rows of ``batch`` to the scores."""
        nats = self.token_nll(batch).sum(dim=1)
        num_tokens = (batch["labels"] != IGNORE_INDEX).sum(dim=1)
        self.perplexity.update(nats, num_tokens, batch["domain"])
        self.bits_per_byte.update(nats, batch["num_bytes"], batch["domain"])

    def on_validation_epoch_end(self) -> None:
        """Log the scores under ``val/``."""
        self._log_scores("val")

    def test_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the rows of ``batch`` to the scores."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the scores under ``test/``."""
        self._log_scores("test")

    def _log_scores(self, prefix: str) -> None:
        perplexity = self.perplexity.compute()
        scores = {
            f"{prefix}/loss": perplexity.log(),
            f"{prefix}/perplexity": perplexity,
            f"{prefix}/bits_per_byte": self.bits_per_byte.compute(),
        }
        if len(self.domains) > 1:
            by_domain = self.bits_per_byte.by_domain()
            for name, score in zip(self.domains, by_domain, strict=True):
                scores[f"{prefix}/{name}/bits_per_byte"] = score
        # the metrics have summed over ranks: sync_dist averages equal numbers, and is asked for
        self.log_dict({k: v.float() for k, v in scores.items()}, sync_dist=True)
        self.perplexity.reset()
        self.bits_per_byte.reset()


class _Counters:
    """Sums since the last log or step; apart from the module, which is slow to set."""

    def __init__(self, device: torch.device) -> None:
        # float32 sums lose digits after some ten million tokens; Apple's GPUs have no float64
        floats = torch.float32 if device.type == "mps" else torch.float64
        self.nats = torch.zeros((), dtype=floats, device=device)
        self.num_tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.step_tokens = torch.zeros((), dtype=torch.int64, device=device)

    def take(self) -> Tensor:
        """Return nats and tokens since the last time (2,)."""
        sums = torch.stack([self.nats, self.num_tokens.to(self.nats.dtype)])
        self.nats.zero_()
        self.num_tokens.zero_()
        return sums


def _config(name: str, value: Any, kind: type[Any]) -> Any:
    """Accept a config object, or the plain data that a checkpoint holds in its place."""
    config = from_plain(value) if isinstance(value, Mapping) else value
    if not isinstance(config, kind):
        known = ", ".join(sorted(str(each.__name__) for each in kind.__subclasses__()))
        raise TypeError(f"{name}={value!r} is no {kind.__name__}; pass one, such as {known}")
    return config
