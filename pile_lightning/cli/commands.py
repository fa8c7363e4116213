"""``pile``: the commands beside training."""

import errno
import io
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pile_lightning.cli.average import average, average_parser
from pile_lightning.cli.checkpoints import list_checkpoints
from pile_lightning.cli.consolidate import consolidate, consolidate_parser
from pile_lightning.cli.errors import readable_errors
from pile_lightning.cli.generate import generate
from pile_lightning.cli.inspection import inspect, inspect_parser
from pile_lightning.cli.members import members
from pile_lightning.cli.parser import ShortErrorParser
from pile_lightning.cli.plan import plan, plan_parser
from pile_lightning.cli.prepare import prepare, prepare_parser
from pile_lightning.cli.scaling import scaling, scaling_parser
from pile_lightning.cli.standard_streams import output_lost, steady_streams
from pile_lightning.cli.transfer import transfer, transfer_parser
from pile_lightning.cli.user_modules import see_users_modules

__all__ = ["main"]


class _Command(NamedTuple):
    help: str
    """What it does, in a line."""
    parser: Callable[[], Any]
    """Makes its parser."""
    run: Callable[[Any, Namespace, Sequence[str]], None]
    """Is given the parser, what it parsed, and the arguments."""


def _function(help: str, description: str, function: Callable[..., None]) -> _Command:
    """Make a command of a function and its arguments."""

    def parser() -> ShortErrorParser:
        made = ShortErrorParser(description=description)
        made.add_function_arguments(function, as_positional=True)
        return made

    return _Command(help, parser, lambda parser, settings, arguments: function(**vars(settings)))


COMMANDS = {
    "prepare": _Command(
        "build the store of a run's text, without training", prepare_parser, prepare
    ),
    "inspect": _Command("show what a run's model will see", inspect_parser, inspect),
    "plan": _Command("say what a run will need and do", plan_parser, plan),
    "generate": _function(
        "stream text from a trained model", "Stream text that continues a prompt.", generate
    ),
    "checkpoints": _function(
        "list the checkpoints of a run",
        "List the checkpoints of a run, newest last, and check that they are whole.",
        list_checkpoints,
    ),
    "average": _Command(
        "average the kept checkpoints of a run",
        average_parser,
        lambda parser, settings, arguments: average(**vars(settings)),
    ),
    "members": _function(
        "write each model of an environment as a run of its own",
        "Write each member of an environment as the folder of a run, below members/.",
        members,
    ),
    "scaling": _Command(
        "fit a scaling law to models of several sizes and lengths",
        scaling_parser,
        lambda parser, settings, arguments: scaling(**vars(settings)),
    ),
    "transfer": _Command(
        "carry the best setting of a sweep to a large network",
        transfer_parser,
        lambda parser, settings, arguments: transfer(**vars(settings)),
    ),
    "consolidate": _Command(
        "turn a sharded checkpoint into one file",
        consolidate_parser,
        lambda parser, settings, arguments: consolidate(**vars(settings)),
    ),
}


def main() -> None:
    """Run one command of ``pile``."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # of a terminal that has not every character
        sys.stdout.reconfigure(errors="replace")
    with steady_streams(), readable_errors():
        see_users_modules()
        parser = ShortErrorParser(
            prog="pile", description="What there is to do before training and after it."
        )
        subcommands = parser.add_subcommands(dest="command", metavar="COMMAND")
        # that of a plan knows all of a Trainer, which takes a while: each is made where it is named
        named = sys.argv[1:2]
        parsers = {
            name: command.parser() if name in named else ShortErrorParser()
            for name, command in COMMANDS.items()
        }
        for name, command in COMMANDS.items():
            subcommands.add_subcommand(name, parsers[name], help=command.help)
        settings = parser.parse_args()
        name = settings.command
        arguments = sys.argv[sys.argv.index(name) + 1 :]
        COMMANDS[name].run(parsers[name], settings[name], arguments)
        lost = output_lost()
        if lost is not None and lost.errno not in (errno.EPIPE, errno.EBADF):
            raise SystemExit(2)  # what it prints is its result
