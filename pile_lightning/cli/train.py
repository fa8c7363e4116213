"""``train.py``: LightningCLI with this package's modules, data, callbacks and manners."""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.plugins.io import CheckpointIO

from pile_lightning.callbacks import (
    AverageWeights,
    BestCheckpoint,
    CheckpointSummary,
    Curves,
    DeliveredTokens,
    KeptCheckpoints,
    LastCheckpoint,
    MemberRuns,
    MetricsCsv,
    Preemption,
    Report,
    RewindSpikes,
    Rewound,
    Samples,
    SaveTokenizer,
    SkipNonFinite,
    StepProgressBar,
    SweepPicture,
    Throughput,
    Watchdog,
    WritePredictions,
)
from pile_lightning.checkpoint import AtomicCheckpointIO
from pile_lightning.cli.errors import readable_errors
from pile_lightning.cli.parser import PileParser
from pile_lightning.cli.ranks import tell_ranks
from pile_lightning.cli.runs import make_room, resolve_checkpoint
from pile_lightning.cli.screen import quieten, say
from pile_lightning.cli.trainer_settings import check_trainer
from pile_lightning.cli.user_modules import see_users_modules
from pile_lightning.device import has_fast_bfloat16

__all__ = ["PileCLI", "train"]

TRAINER_DEFAULTS = {
    "max_steps": 1000,
    "val_check_interval": 250,
    "check_val_every_n_epoch": None,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
    "default_root_dir": "runs/latest",
}


class SaveFitConfig(SaveConfigCallback):
    """Keep the config of a fit as ``config.yaml``; other commands leave the run's folder alone."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save before training starts."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class PileCLI(LightningCLI):
    """LightningCLI whose defaults leave a whole run behind, in ``trainer.default_root_dir``.

    ``trainer.precision`` left open is chosen by what the machine does well. ``ckpt_path`` takes
    ``auto`` (the newest good one, if there is any), ``last``, ``best``, ``average``, a checkpoint,
    or a run's folder.

    Args:
        args: Arguments; those of the command line by default.
    """

    def __init__(self, args: ArgsType = None) -> None:
        super().__init__(
            # any module and any data: ours are the defaults
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveFitConfig,
            save_config_kwargs={"overwrite": True},
            parser_class=PileParser,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            # checkpoints hold the module's own plain hyper-parameters, whoever made the module
            load_from_checkpoint_support=False,
            trainer_defaults=TRAINER_DEFAULTS,
            args=args,
        )

    @staticmethod
    def add_arguments_to_parser(parser: LightningArgumentParser) -> None:
        """Add what is linked and what is always there; also to the parser of ``pile plan``."""
        parser.set_defaults({"model": {"class_path": "pile_lightning.CausalLM"}})
        parser.set_defaults({"data": {"class_path": "pile_lightning.TextData"}})
        for source, target in (("vocab_size", "vocab_size"), ("seq_len", "max_seq_len")):
            parser.link_arguments(
                f"data.{source}", f"model.init_args.{target}", apply_on="instantiate"
            )
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        parser.add_lightning_class_args(BestCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(KeptCheckpoints, "kept_checkpoints")
        parser.add_class_arguments(AtomicCheckpointIO, "checkpoints")
        parser.add_lightning_class_args(Samples, "samples")
        parser.add_lightning_class_args(WritePredictions, "predictions")
        # after the samples, which are to be of the averaged weights
        parser.add_lightning_class_args(AverageWeights, "average")
        parser.add_lightning_class_args(SkipNonFinite, "non_finite")
        parser.add_lightning_class_args(RewindSpikes, "spikes")
        parser.add_lightning_class_args(Watchdog, "watchdog")
        parser.add_lightning_class_args(Preemption, "preemption")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and take the checkpoint out: the config alone says what the model is."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        check_trainer(config.trainer)
        _score_at_least_once(config.trainer)
        tell_ranks(config.trainer, config.model)
        folder = Path(config.trainer.default_root_dir)
        self.checkpoint = resolve_checkpoint(
            config.ckpt_path, folder, may_be_fresh=self.config.subcommand == "fit"
        )
        _check_model(config.model, self.checkpoint)
        config.ckpt_path = None
        config.weights_only = True  # a checkpoint is data: loading one never runs code

    def before_fit(self) -> None:
        """Keep an earlier run that a fresh fit would overwrite, now that all settings are right."""
        if self.checkpoint is None and not self.trainer.fast_dev_run:
            make_room(Path(self.trainer.default_root_dir))
        for callback in self.trainer.callbacks:
            if isinstance(callback, Preemption):
                callback.listen()  # preparing text may take hours, and can be gone on with

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer with the run's logger, an atomic checkpoint writer and a precision."""
        config = self.config_init[self.subcommand].trainer
        if config.precision is None:
            kwargs["precision"] = choose_precision(config.accelerator)
        plugins = _as_list(config.plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(self.config_init[self.subcommand].checkpoints)
        if _lightning_would_requeue(plugins):
            plugins.append(SLURMEnvironment(auto_requeue=False))
        kwargs["plugins"] = plugins
        kwargs["logger"] = False
        callbacks: list[Callback] = _as_list(config.callbacks)
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if config.enable_progress_bar is not False and not has_bar:
            callbacks.append(StepProgressBar())
        if self.subcommand == "fit":
            if config.logger is not False:
                own = MetricsCsv(config.default_root_dir)
                kwargs["logger"] = [own, *(x for x in _as_list(config.logger) if x is not True)]
            callbacks += [Throughput(), DeliveredTokens(), SaveTokenizer(), Curves(), MemberRuns()]
            callbacks += [SweepPicture(), Report(), CheckpointSummary()]
        kwargs["callbacks"] = callbacks
        trainer = super().instantiate_trainer(**kwargs)
        self.config_init[self.subcommand].ckpt_path = self.checkpoint
        return trainer


def _check_model(model: Any, checkpoint: str | None) -> None:
    """Let a model that can complete and judge its settings do so before text is prepared for it."""
    module, _, name = model.class_path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    complete = getattr(kind, "complete_settings", None)
    if complete is not None:
        settings = complete(**model.init_args.as_dict(), checkpoint=checkpoint)
        for field, value in settings.items():
            model.init_args[field] = value
    check = getattr(kind, "check_settings", None)
    if check is not None:
        check(**model.init_args.as_dict())


def _score_at_least_once(trainer: Any) -> None:
    """Bring validation into a run that is shorter than its interval."""
    micro_batches = trainer.max_steps * trainer.accumulate_grad_batches
    interval = trainer.val_check_interval
    if isinstance(interval, int) and 0 < micro_batches < interval:
        say(f"Scoring once, at the end: val_check_interval={interval} is beyond the last step.")
        trainer.val_check_interval = micro_batches


def choose_precision(accelerator: str) -> str:
    """Return what this machine computes fast and well, and say so."""
    device = accelerator if accelerator != "auto" else _auto_accelerator()
    device = {"gpu": "cuda"}.get(device, device)
    fast = has_fast_bfloat16(device)
    precision = "bf16-mixed" if fast else "32-true"
    why = "has fast bfloat16 products" if fast else "has no fast bfloat16 products"
    say(f"Precision {precision}: this {device} {why}.")
    return precision


def _lightning_would_requeue(plugins: list[Any]) -> bool:
    """Say whether Lightning would save and queue the job again itself, inside a signal handler."""
    if any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
        return False
    return SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()


def _auto_accelerator() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def train(args: ArgsType = None) -> None:
    """Run ``train.py`` with ``args``, or with the command line's."""
    with readable_errors():
        quieten()
        see_users_modules()
        while True:
            try:
                PileCLI(args)
                return
            except Rewound as rewound:
                if not rewound.alone:
                    raise  # whoever started the ranks starts them again
                if args is None:
                    sys.argv.append("--ckpt_path=auto")
                elif isinstance(args, list):
                    args = [*args, "--ckpt_path=auto"]
                else:
                    raise
