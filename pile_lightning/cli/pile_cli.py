"""``train.py``: LightningCLI with this package's modules, data, callbacks and manners."""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
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
from pile_lightning.cli.config_file import ConfigFile
from pile_lightning.cli.errors import readable_errors
from pile_lightning.cli.other_settings import why_not_resumed
from pile_lightning.cli.parser import PileParser, read_field_docs
from pile_lightning.cli.ranks import tell_ranks
from pile_lightning.cli.run_folder import ClearFolder, SaveFitConfig, owned, saved_times
from pile_lightning.cli.runs import checkpoints_of, resolve_checkpoint
from pile_lightning.cli.screen import quieten, say
from pile_lightning.cli.standard_streams import steady_streams
from pile_lightning.cli.trainer_settings import check_trainer
from pile_lightning.cli.user_modules import see_users_modules
from pile_lightning.device import has_fast_bfloat16
from pile_lightning.loggers import LoggerName, LogPictures, make_logger

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


class PileCLI(LightningCLI):
    """LightningCLI whose defaults leave a whole run behind, in ``trainer.default_root_dir``.

    ``trainer.precision`` left open is chosen by what the machine does well. ``ckpt_path`` takes
    ``auto`` (the newest good one, if there is any), ``last``, ``best``, ``average``, a checkpoint,
    or a run's folder.

    Args:
        args: Arguments; those of the command line by default.
    """

    def __init__(self, args: ArgsType = None) -> None:
        words = sys.argv[1:] if args is None else args if isinstance(args, list) else []
        self._named = words[:1]
        read_field_docs(words)
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

    def subcommands(self) -> dict[str, set[str]]:
        """Return the command that is named, for the parser of each takes a second; else all."""
        known: dict[str, set[str]] = LightningCLI.subcommands()
        return {name: known[name] for name in self._named if name in known} or known

    def init_parser(self, **kwargs: Any) -> PileParser:
        """Make a parser whose ``--config`` also takes the name of a shipped config."""
        parser = PileParser(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ConfigFile, help="A YAML file, or a shipped config's name."
        )
        return parser

    @staticmethod
    def add_arguments_to_parser(parser: LightningArgumentParser) -> None:
        """Add what is linked and what is always there; also to the parser of ``pile plan``."""
        parser.set_defaults({"model": {"class_path": "pile_lightning.CausalLM"}})
        parser.set_defaults({"data": {"class_path": "pile_lightning.TextData"}})
        for source, target in (("vocab_size", "vocab_size"), ("seq_len", "max_seq_len")):
            parser.link_arguments(
                f"data.{source}", f"model.init_args.{target}", apply_on="instantiate"
            )
        parser.add_argument(
            "--logger",
            type=LoggerName | list[LoggerName] | None,
            help="Trackers to log to besides metrics.csv, in the run's folder.",
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
        self._saved_times = saved_times(folder)
        self.checkpoint = resolve_checkpoint(
            config.ckpt_path, folder, may_be_fresh=self.config.subcommand == "fit"
        )
        _check_model(config.model, self.checkpoint)
        config.ckpt_path = None
        config.weights_only = True  # a checkpoint is data: loading one never runs code

    def before_fit(self) -> None:
        """Heed signals."""
        for callback in self.trainer.callbacks:
            if isinstance(callback, Preemption):
                callback.listen()  # preparing text may take hours, and can be gone on with

    def fit(self, **kwargs: Any) -> None:
        """Train, as the one owner of the run's folder.

        Raises:
            ValueError: Where another process trains in it, or has while this one started.
        """
        folder = Path(self.trainer.default_root_dir)
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:
            self._fit(**kwargs)
            return
        with owned(folder):
            if saved_times(folder) != self._saved_times:
                raise ValueError(
                    f"another run saved checkpoints in {folder} while this one started; start it "
                    f"again"
                )
            try:
                self._fit(**kwargs)
            except SystemExit as leaving:
                if isinstance(leaving.__context__, KeyboardInterrupt):
                    self._say_how_to_go_on(folder)
                    raise leaving.__context__ from None
                raise

    def _fit(self, **kwargs: Any) -> None:
        try:
            self.trainer.fit(**kwargs)
        except (RuntimeError, ValueError) as error:
            reason = why_not_resumed(error, self.model, self.checkpoint)
            if reason is None:
                raise
            raise ValueError(reason) from error

    def _say_how_to_go_on(self, folder: Path) -> None:
        step = self.trainer.global_step
        if (folder / "config.yaml").is_file() and checkpoints_of(folder):
            say(
                f"\nCtrl-C after step {step}. To go on from the last checkpoint:\n"
                f"  python train.py fit --config {folder}/config.yaml --ckpt_path auto"
            )

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
        if self.subcommand == "fit":
            folder = Path(config.default_root_dir)
            callbacks.insert(0, ClearFolder(folder, fresh=self.checkpoint is None))
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if config.enable_progress_bar is not False and not has_bar:
            callbacks.append(StepProgressBar())
        if self.subcommand == "fit":
            if config.logger is not False:
                own = MetricsCsv(config.default_root_dir)
                users = [x for x in _as_list(config.logger) if x is not True]
                kwargs["logger"] = [own, *users, *self._trackers()]
            callbacks += [Throughput(), DeliveredTokens(), SaveTokenizer(), Curves(), MemberRuns()]
            callbacks += [SweepPicture(), Report(), CheckpointSummary(), LogPictures()]
        kwargs["callbacks"] = callbacks
        trainer = super().instantiate_trainer(**kwargs)
        self.config_init[self.subcommand].ckpt_path = self.checkpoint
        return trainer

    def _trackers(self) -> list[Logger]:
        """Make the loggers that ``--logger`` names."""
        settings = self.config_init[self.subcommand]
        folder, resumed = settings.trainer.default_root_dir, self.checkpoint is not None
        return [make_logger(x, folder, resumed=resumed) for x in _as_list(settings.logger)]


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
    with steady_streams(), readable_errors():
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
