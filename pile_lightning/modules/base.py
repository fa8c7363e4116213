"""What every language module shares: configs in, network out, and a loss per predicted token.

The loss is normalised by the predicted tokens of the whole global batch. A mean of the means of
micro-batches or ranks weighs a token by the company it keeps: where rows hold different numbers of
ignored labels, the gradient was 40 % off in a small case. So back-propagate sums, count the tokens
as they pass, and scale the gradients once before the step.
"""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, Self, cast

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pile_lightning.batch import IGNORE_INDEX, TokenBatch
from pile_lightning.checkpoint import as_file
from pile_lightning.config import from_plain, to_plain
from pile_lightning.metrics import BitsPerByte, Perplexity
from pile_lightning.modules.counters import Counters
from pile_lightning.nn import NetworkConfig
from pile_lightning.optim import Muon, OptimizerConfig, ScheduleConfig, local
from pile_lightning.parallel import Recompute, build_for, clip, why_not_compile

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
        activation_checkpointing: ``none`` keeps the whole forward for the backward, ``full`` what
            each block reads, ``selective`` also the results of its products; the rest is computed
            again.
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
        activation_checkpointing: Recompute = "none",
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
        self.activation_checkpointing = activation_checkpointing
        self.network = None

    @abstractmethod
    def loss_sum(self, batch: TokenBatch) -> Tensor:
        """Return the summed loss over the predicted tokens of ``batch``: what training minimises.

        Override it to change the objective; the mean over the global batch is taken for you.
        """

    @abstractmethod
    def token_nll(self, batch: TokenBatch) -> Tensor:
        """Return the nats of each label (batch, seq), 0 where ignored."""

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path | IO[bytes], *settings: Any, **more: Any
    ) -> Self:
        """Load a checkpoint of any strategy: a file, or the folder of a sharded one.

        Args:
            checkpoint_path: The file or the folder.
            settings: As Lightning's ``load_from_checkpoint`` takes them.
            more: As Lightning's ``load_from_checkpoint`` takes them.

        Raises:
            ValueError: For a checkpoint that is damaged.
        """
        if isinstance(checkpoint_path, str | Path) and "://" not in str(checkpoint_path):
            with as_file(checkpoint_path) as file:
                return cast(Self, super().load_from_checkpoint(file, *settings, **more))
        return cast(Self, super().load_from_checkpoint(checkpoint_path, *settings, **more))

    # -- building ---------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Build the network, once, whole or as the strategy spreads it over ranks."""
        if self.network is not None:
            return
        build = partial(
            self.network_config.build, vocab_size=self.vocab_size, max_seq_len=self.max_seq_len
        )
        missing = why_not_compile() if self.compiles else None
        if missing is not None:
            rank_zero_info(f"Training without torch.compile: {missing}.")
            self.compiles = False
        self.network = build_for(
            self,
            build,
            recompute=self.activation_checkpointing,
            compile=self.compiles,
        )

    def configure_optimizers(self) -> dict[str, Any]:
        """Make the optimizer and a schedule that advances every optimizer step."""
        total = self.trainer.max_steps
        if total < 1:
            raise ValueError(
                f"trainer.max_steps={total}: schedules count optimizer steps and need to know the "
                f"last one; set trainer.max_steps"
            )
        optimizer = self.optimizer_config.build(self.built_network)
        if isinstance(self.trainer.strategy, FSDPStrategy) and isinstance(optimizer, Muon):
            raise ValueError(
                f"{type(self.trainer.strategy).__name__} flattens parameters, and Muon steps "
                f"matrices; use pile_lightning.ShardedStrategy, or AdamWConfig"
            )
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
        self._counters = Counters(self.device)
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
        gradients = self._gradients()
        if gradients:  # a callback that leaves a step out drops them
            torch._foreach_mul_([local(g) for g in gradients], means / num_tokens)
        step_tokens.zero_()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients of all ranks, whatever the strategy."""
        if gradient_clip_val is not None and gradient_clip_val > 0:
            self._counters.norm = clip(
                self._gradients(),
                gradient_clip_val,
                algorithm=gradient_clip_algorithm or "norm",
                strategy=self.trainer.strategy,
            )

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters() if p.grad is not None]

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
        if self._counters.norm is not None:
            self.log("train/gradient_norm", self._counters.norm)

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


def _config(name: str, value: Any, kind: type[Any]) -> Any:
    """Accept a config object, or the plain data that a checkpoint holds in its place."""
    config = from_plain(value) if isinstance(value, Mapping) else value
    if not isinstance(config, kind):
        known = ", ".join(sorted(str(each.__name__) for each in kind.__subclasses__()))
        raise TypeError(f"{name}={value!r} is no {kind.__name__}; pass one, such as {known}")
    return config
