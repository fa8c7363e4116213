"""What every language module shares: configs in, network out, and a loss per predicted token.

It trains alone, or as a member of an environment, which calls its hooks and logs for it.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, Self, cast

from lightning import Callback
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pile_lightning.batch import IGNORE_INDEX, TokenBatch
from pile_lightning.checkpoint import as_file
from pile_lightning.config import from_plain, to_plain
from pile_lightning.loop_state import LoopState
from pile_lightning.modules.awaiting import AwaitsWeights
from pile_lightning.modules.keep_token_mean import KeepTokenMean
from pile_lightning.modules.scores import open_scores
from pile_lightning.modules.token_mean import TokenMean
from pile_lightning.nn import NetworkConfig, weights_follow
from pile_lightning.optim import Muon, OptimizerConfig, ScheduleConfig
from pile_lightning.parallel import Recompute, build_for, clip, why_not_compile

__all__ = ["LanguageModule"]


class LanguageModule(AwaitsWeights):
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
    token_mean: TokenMean
    """The sums of losses and tokens since the last log, once training has started."""

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
        self.log_to: Callable[..., None] | None = None
        """Where metrics go, of a member of an environment; the trainer by default."""
        self.own_optimizer: Optimizer | None = None
        """What steps the parameters, once it is made."""
        self.restored_mean: dict[str, float] | None = None
        """Those of the checkpoint that training is to start from."""
        self.carried_elsewhere: Collection[nn.Parameter] = frozenset()
        """Parameters whose gradients another member of an environment divides and clips."""

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
        with weights_follow():
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
        self.own_optimizer = optimizer
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

    def configure_callbacks(self) -> list[Callback]:
        """Return what lets a run go on from any checkpoint of it."""
        return [LoopState(), KeepTokenMean()]

    # -- training ---------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Open the counters."""
        self.token_mean = TokenMean(self.trainer, self.device, self.restored_mean)
        self.restored_mean = None
        self.gradient_norm: Tensor | None = None

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Return what to back-propagate: the mean loss, or the sum where the step is shared."""
        return self.token_mean.add(self.loss_sum(batch), (batch["labels"] != IGNORE_INDEX).sum())

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Divide gradients by the tokens of the global batch; clipping comes after this."""
        # now: the schedule has moved on when the step is logged
        self.step_rate: float = optimizer.param_groups[0]["lr"]
        self.token_mean.divide(self.gradients())

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients of all ranks, whatever the strategy."""
        if gradient_clip_val is not None and gradient_clip_val > 0:
            self.gradient_norm = clip(
                self.gradients(),
                gradient_clip_val,
                algorithm=gradient_clip_algorithm or "norm",
                strategy=self.trainer.strategy,
            )

    def gradients(self) -> list[Tensor]:
        """Return the gradients that there are, but for those that another member answers for."""
        elsewhere = self.carried_elsewhere
        return [p.grad for p in self.parameters() if p.grad is not None and p not in elsewhere]

    def on_train_batch_end(self, outputs: Any, batch: TokenBatch, batch_idx: int) -> None:
        """Log the mean loss of the tokens since the last time, and the learning rate."""
        trainer = self.trainer
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step % trainer.log_every_n_steps:
            return
        self.log("train/loss", self.token_mean.take(), prog_bar=True)
        self.log("train/lr", self.step_rate)
        if self.gradient_norm is not None:
            self.log("train/gradient_norm", self.gradient_norm)

    def log(self, name: str, value: Any, *settings: Any, **more: Any) -> None:
        """Log a metric, as Lightning does; that of a member stands under the member's name."""
        (self.log_to or super().log)(name, value, *settings, **more)

    # -- scoring ----------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Open the metrics, one column a domain of the data."""
        data = getattr(self.trainer, "datamodule", None)
        self.domains: tuple[str, ...] = getattr(data, "domains", None) or ("text",)
        self.bits_per_byte, self.perplexity = open_scores(
            self.trainer, num_domains=len(self.domains)
        )

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the rows of ``batch`` to the scores."""
        self.add_scores(self.token_nll(batch), batch)

    def add_scores(self, token_nll: Tensor, batch: TokenBatch) -> None:
        """Add rows of which the nats of each label (batch, seq) are known to the scores."""
        nats = token_nll.sum(dim=1)
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
