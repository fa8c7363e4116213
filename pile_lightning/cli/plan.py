"""``pile plan``: what a run will need and do, before it is started."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from lightning import LightningDataModule, LightningModule, Trainer

from pile_lightning.cli.config_file import ConfigFile
from pile_lightning.cli.data_config import training_command
from pile_lightning.cli.parser import PileParser, read_field_docs
from pile_lightning.cli.pile_cli import TRAINER_DEFAULTS, PileCLI
from pile_lightning.cli.plan_figures import Figures
from pile_lightning.cli.plan_lines import (
    memory_lines,
    parameter_lines,
    recompute_lines,
    speed_lines,
    step_lines,
    traffic_lines,
)
from pile_lightning.cli.plan_picture import draw_plan
from pile_lightning.cli.plan_run import make_run
from pile_lightning.cli.plan_schedule import schedule_lines, schedule_of
from pile_lightning.cli.plan_text import text_lines
from pile_lightning.cli.plan_warnings import checkpoint_lines, warning_lines
from pile_lightning.cli.screen import say, wrapped

__all__ = ["plan", "plan_parser"]

_OWN = ("efficiency", "gpu", "gpus", "gpus_per_node", "picture")
_OF_FIT = {"model", "train_dataloaders", "val_dataloaders", "datamodule"}


def plan_parser() -> PileParser:
    """Return the parser of the command: that of ``train.py fit``, and the hardware."""
    read_field_docs(sys.argv)
    parser = PileParser(
        description="Say what a run will need and do, before it is started: parameters, memory, "
        "traffic, speed, text and schedule. Nothing is prepared, and no GPU is needed. Give the "
        "config and the arguments of train.py."
    )
    parser.add_argument(
        "-c", "--config", action=ConfigFile, help="The run's config; of several, later win."
    )
    parser.add_argument(
        "--seed_everything", type=bool | int, default=0, help="Seed of the random numbers."
    )
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    PileCLI.add_arguments_to_parser(parser)
    parser.add_method_arguments(Trainer, "fit", skip=_OF_FIT)
    parser.add_argument(
        "--gpu", type=str | None, help="GPU to plan for: a100, a100-40gb, h100, h200 or b200."
    )
    parser.add_argument(
        "--gpus", type=int | None, help="How many, over all nodes; by default the trainer's."
    )
    parser.add_argument("--gpus_per_node", type=int, default=8, help="Of them in a node.")
    parser.add_argument(
        "--efficiency",
        type=float,
        default=0.5,
        help="Share of the GPU's peak that a step reaches where nothing is sent: an assumption.",
    )
    parser.add_argument(
        "--picture", type=str | None, help="PNG to draw; plan.png in the run's folder by default."
    )
    return parser


def plan(parser: ArgumentParser, settings: Namespace, arguments: Sequence[str]) -> None:
    """Say what the run needs and does.

    Args:
        parser: The parser of the command.
        settings: What it parsed.
        arguments: The arguments as they were given.
    """
    run = make_run(parser, settings)
    figures = Figures(run, efficiency=settings.efficiency)
    folder = Path(settings.trainer.default_root_dir)
    for lines in (
        parameter_lines(figures),
        step_lines(figures),
        memory_lines(figures),
        recompute_lines(figures),
        traffic_lines(figures),
        speed_lines(figures),
        schedule_lines(run),
        text_lines(run),
        checkpoint_lines(figures, folder),
        warning_lines(figures, folder),
    ):
        if lines:
            say("\n" + "\n".join(piece for line in lines for piece in wrapped(line)))
    picture = Path(settings.picture or folder / "plan.png")
    draw_plan(
        picture,
        factors=schedule_of(run),
        memories={layout.name: figures.memory(layout) for layout in figures.layouts},
        gpu=run.gpu,
    )
    say(f"\n{picture} shows memory and schedule.\n\nNext:")
    command = training_command(arguments, without=_OWN)
    if settings.gpus is not None:
        nodes = max(1, run.layout.num_ranks // run.ranks_per_node)
        command += f" --trainer.devices {run.layout.num_ranks // nodes}"
        command += f" --trainer.num_nodes {nodes}"
    say(f"  {command}")
