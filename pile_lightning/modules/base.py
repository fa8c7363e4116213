"""What every language module shares: configs in, network out, and a loss per predicted token.

It trains alone, or as a member of an environment, which calls its hooks and logs for it.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from functools import partial
from numbers import Integral
from typing import Any

from lightning import Callback
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from pile_lightning.batch import IGNORE_INDEX, TokenBatch, check_batch
from pile_lightning.checkpoint.trainers import trainer_of_data
from pile_lightning.config import from_plain, to_plain
from pile_lightning.loop_state import LoopState
from pile_lightning.modules.bookkeeping import Bookkeeping, CheckWeights, add_missing
from pile_lightning.modules.hooks import check_supers
from pile_lightning.modules.keep_token_mean import KeepTokenMean
from pile_lightning.modules.logged_names import LoggedNames
from pile_lightning.modules.restorable import RestorableModule, read_back
from pile_lightning.modules.scores import open_scores
from pile_lightning.modules.token_mean import TokenMean
from pile_lightning.nn import NetworkConfig
from pile_lightning.optim import Muon, OptimizerConfig, ScheduleConfig, StepSchedule
from pile_lightning.parallel import Recompute, build_for, clip, why_not_compile

__all__ = ["LanguageModule", "check_from_data"]


class LanguageModule(RestorableModule):
    """Train a network on token batches; sub-classes say what the loss of a batch is.

    Hyper-parameters are the arguments of the constructor, also that of a sub-class, as plain data:
    ``load_from_checkpoint`` reads them with its safe default, and ``save_hyperparameters`` is for
    what is to be left out. What would not come back is refused when the module is made.

    Lightning's hooks are free for sub-classes, without ``super()``: what a module does in them is
    done by the callbacks of ``configure_callbacks``. A ``training_step`` of a sub-class is taken as
    Lightning documents it: it returns a mean, and logs what it likes.

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

    Raises:
        TypeError: For a sub-class without ``super()`` in its ``configure_callbacks``.
    """

    network: nn.Module | None
    trainer = trainer_of_data
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
        check_supers(type(self), base=LanguageModule, hooks=["configure_callbacks"])
        self.network_config = self._config("network", network, NetworkConfig)
        self.optimizer_config = self._config("optimizer", optimizer, OptimizerConfig)
        self.schedule_config = self._config("schedule", schedule, ScheduleConfig)
        check_from_data(vocab_size=vocab_size, max_seq_len=max_seq_len)
        self.hparams.update(vocab_size=vocab_size, max_seq_len=max_seq_len)
        self.vocab_size = vocab_size
        self.max_seq_len = max_seq_len
        self.compiles = compile
        self.activation_checkpointing = activation_checkpointing
        self.network = None
        self.log_to: Callable[..., None] | None = None
        """Where metrics go, of a member of an environment; the trainer by default."""
        self.own_optimizer: Optimizer | None = None
        """What steps the parameters, once it is made."""
        self.logged_names = LoggedNames()
        """Which metrics are logged here, and which a sub-class logs in their place."""
        self._step_rate: float | None = None
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

    def _config(self, name: str, value: Any, kind: type[Any]) -> Any:
        """Accept a config object, or the plain data that a checkpoint holds in its place."""
        config = from_plain(value) if isinstance(value, Mapping) else read_back(value)
        if not isinstance(config, kind):
            known = ", ".join(sorted(str(each.__name__) for each in kind.__subclasses__()))
            raise TypeError(f"{name}={value!r} is no {kind.__name__}; pass one, such as {known}")
        if isinstance(value, Mapping):
            self.store_as(name, value, to_plain(config))
        else:
            self.hparams[name] = config
        return config

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
        schedule = StepSchedule(optimizer, self.schedule_config.build(total=total))
        # "step": the default would advance it once an epoch and leave a warm-up at its start
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    @property
    def built_network(self) -> nn.Module:
        """The network, built."""
        self.configure_model()
        if self.network is None:
            raise TypeError(
                f"{type(self).__name__}.configure_model made no self.network; set it, or leave "
                f"configure_model out"
            )
        return self.network

    def configure_callbacks(self) -> list[Callback]:
        """Return what counts, divides, logs and scores; add callbacks of your own to these."""
        return add_missing(
            self.trainer, CheckWeights(), Bookkeeping(), LoopState(), KeepTokenMean()
        )

    # -- training ---------------------------------------------------------------------------------

    def open_counters(self) -> None:
        """Open the counters of training."""
        self.token_mean = TokenMean(self.trainer, self.device, self.restored_mean)
        self.restored_mean = None
        self.gradient_norm: Tensor | None = None

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Return what to back-propagate.

        That is the mean loss of a token of ``batch``, also for a sub-class that overrides this and
        calls it. Where nobody does, and micro-batches or ranks share the step, it is the sum, and
        gradients are divided before the step: the mean is that of the whole global batch.
        """
        check_batch(batch, look_inside=batch_idx == 0)
        num_tokens = (batch["labels"] != IGNORE_INDEX).sum()
        return self.token_mean.add(self.loss_sum(batch), num_tokens, alone=self.has_own_step)

    @property
    def has_own_step(self) -> bool:
        """Whether ``training_step`` is not the one of this class, which counts tokens."""
        return getattr(self.training_step, "__func__", None) is not LanguageModule.training_step

    def divide_gradients(self) -> None:
        """Divide gradients by the tokens of the global batch, where they are of sums."""
        if self.own_optimizer or self.trainer.optimizers:
            optimizer = self.own_optimizer or self.trainer.optimizers[0]
            # now: the schedule has moved on when the step is logged
            self._step_rate = optimizer.param_groups[0]["lr"]
        if not self.has_own_step:
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

    def log_training(self, outputs: Any, batch_idx: int) -> None:
        """Log the mean loss since the last time, and the learning rate.

        The loss is that of a token, or the mean of what a ``training_step`` of a sub-class has
        returned. What a sub-class logs by itself under one of these names is left to it.
        """
        trainer = self.trainer
        if self.has_own_step and isinstance(outputs, Mapping) and "loss" in outputs:
            self.token_mean.observe(outputs["loss"] * trainer.accumulate_grad_batches)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step % trainer.log_every_n_steps:
            return
        if self.token_mean.has_some or not self.has_own_step:
            self._log("train/loss", self.token_mean.take(), prog_bar=True)
        if self._step_rate is not None:
            self._log("train/lr", self._step_rate)
        if self.gradient_norm is not None:
            self._log("train/gradient_norm", self.gradient_norm)

    def log(self, name: str, value: Any, *settings: Any, **more: Any) -> None:
        """Log a metric, as Lightning does; that of a member stands under the member's name.

        Raises:
            ValueError: If this class has logged a metric of that name in the same hook.
        """
        self.logged_names.log_theirs(name, kind=type(self).__name__)
        (self.log_to or super().log)(name, value, *settings, **more)

    def _log(self, name: str, value: Any, **settings: Any) -> None:
        """Log what this class computes, unless a sub-class logs it."""
        if self.logged_names.log_ours(name):
            (self.log_to or super().log)(name, value, **settings)

    # -- scoring ----------------------------------------------------------------------------------

    def open_scores(self) -> None:
        """Open the metrics, one column a domain of the data."""
        data = getattr(self.trainer, "datamodule", None)
        self.domains: tuple[str, ...] = getattr(data, "domains", None) or ("text",)
        self.bits_per_byte, self.perplexity = open_scores(
            self.trainer, num_domains=len(self.domains)
        )

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the rows of ``batch`` to the scores."""
        check_batch(batch, look_inside=batch_idx == 0)
        self.add_scores(self.token_nll(batch), batch)

    def add_scores(self, token_nll: Tensor, batch: TokenBatch) -> None:
        """Add rows of which the nats of each label (batch, seq) are known to the scores."""
        nats = token_nll.sum(dim=1)
        num_tokens = (batch["labels"] != IGNORE_INDEX).sum(dim=1)
        domain = batch.get("domain")
        self.perplexity.update(nats, num_tokens, domain)
        if "num_bytes" in batch:
            self.bits_per_byte.update(nats, batch["num_bytes"], domain)

    def test_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add the rows of ``batch`` to the scores."""
        LanguageModule.validation_step(self, batch, batch_idx)

    def log_scores(self, prefix: str) -> None:
        """Log the scores under ``val/`` or ``test/``, and begin new ones.

        There are no bits per byte of batches without ``num_bytes``. A sub-class with a
        ``validation_step`` of its own that adds no rows logs by itself.
        """
        step = "validation_step" if prefix == "val" else "test_step"
        own = getattr(type(self), step) is not getattr(LanguageModule, step)
        if own and not self.perplexity.num_counted():
            return
        perplexity = self.perplexity.compute()
        scores = {f"{prefix}/loss": perplexity.log(), f"{prefix}/perplexity": perplexity}
        if self.bits_per_byte.num_counted():
            scores[f"{prefix}/bits_per_byte"] = self.bits_per_byte.compute()
            if len(self.domains) > 1:
                by_domain = self.bits_per_byte.by_domain()
                for name, score in zip(self.domains, by_domain, strict=True):
                    scores[f"{prefix}/{name}/bits_per_byte"] = score
        for name, score in scores.items():
            # the metrics have summed over ranks: sync_dist averages equal numbers, and is asked for
            self._log(name, score.float(), sync_dist=True)
        self.perplexity.reset()
        self.bits_per_byte.reset()


def check_from_data(**sizes: int) -> None:
    """Raise a TypeError where a size that comes from the data is no whole number above 0."""
    attribute = {"vocab_size": "vocab_size", "max_seq_len": "seq_len"}
    for name, size in sizes.items():
        if not isinstance(size, Integral) or size < 1:
            raise TypeError(
                f"{name}={size!r} is no whole number above 0. From the command line it is the "
                f"attribute {attribute[name]} of the data module: give yours one, or set "
                f"--model.init_args.{name}"
            )
