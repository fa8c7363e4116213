"""``pile``: one program, whose commands are imported when they are named."""

import errno
import io
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

from pile_lightning.version import __version__

__all__ = ["COMMANDS", "OF_LIGHTNING", "command_parser", "main"]


class _Command(NamedTuple):
    help: str
    """What it does, in a line."""
    module: str
    """Of ``pile_lightning.cli``, where it lies."""
    function: str
    """What runs it: the arguments of the command, or ``(parser, settings, arguments)``."""
    parser: str | None = None
    """What makes its parser; by default the parser has the function's own arguments."""
    arguments: bool = False
    """Whether the function takes ``(parser, settings, arguments)``."""


OF_LIGHTNING = {
    "fit": "train from a config",
    "validate": "score a checkpoint on held-out text",
    "test": "score a checkpoint on the data's test rows",
    "predict": "list the likely next tokens of held-out text",
}
COMMANDS = {
    "config": _Command(
        "list the shipped configs, print or copy one", "config", "show_config", "config_parser"
    ),
    "prepare": _Command(
        "build the store of a run's text, without training",
        "prepare",
        "prepare",
        "prepare_parser",
        True,
    ),
    "inspect": _Command(
        "show what a run's model will see", "inspection", "inspect", "inspect_parser", True
    ),
    "plan": _Command("say what a run will need and do", "plan", "plan", "plan_parser", True),
    "generate": _Command("write text with a trained model", "generate", "generate"),
    "checkpoints": _Command(
        "list the checkpoints of a run, and check them", "checkpoints", "list_checkpoints"
    ),
    "average": _Command(
        "average the kept checkpoints of a run", "average", "average", "average_parser"
    ),
    "members": _Command(
        "write each model of an environment as a run of its own", "members", "members"
    ),
    "scaling": _Command(
        "fit a scaling law to models of several sizes and lengths",
        "scaling",
        "scaling",
        "scaling_parser",
    ),
    "transfer": _Command(
        "carry the best setting of a sweep to a large network",
        "transfer",
        "transfer",
        "transfer_parser",
    ),
    "consolidate": _Command(
        "turn a sharded checkpoint into one file",
        "consolidate",
        "consolidate",
        "consolidate_parser",
    ),
    "completion": _Command(
        "print a script for a shell's tab completion",
        "completion",
        "print_completion",
        "completion_parser",
    ),
}
_EPILOG = """\
A first model in a minute:
  pile fit --config minute

`pile COMMAND --help` shows the settings of a command."""


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print a line, with the nearest command."""
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def main() -> None:
    """Run one command of ``pile``."""
    if len(sys.argv) > 1 and sys.argv[1] in OF_LIGHTNING:
        from pile_lightning.cli.pile_cli import train

        train()
        return
    name = _parse_name()
    from pile_lightning.cli.errors import readable_errors
    from pile_lightning.cli.standard_streams import output_lost, steady_streams
    from pile_lightning.cli.user_modules import see_users_modules

    if isinstance(sys.stdout, io.TextIOWrapper):  # of a terminal that has not every character
        sys.stdout.reconfigure(errors="replace")
    with steady_streams(), readable_errors():
        see_users_modules()
        parser = command_parser(name)
        settings = parser.parse_args(arguments := sys.argv[2:])
        _run(name, parser, settings, arguments)
        lost = output_lost()
        if lost is not None and lost.errno not in (errno.EPIPE, errno.EBADF):
            raise SystemExit(2)  # what it prints is its result


def _parse_name() -> str:
    """Return the command that is named; leave for help, the version and what is none."""
    parser = _Parser(
        prog="pile",
        description="Train language Transformers, and what there is to do before and after.",
        usage="pile COMMAND ...",
        epilog=_listing() + "\n\n" + _EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pile_lightning {__version__}")
    parser.add_argument("command", metavar="COMMAND", nargs="?", help="one of those below")
    name: str | None = parser.parse_args(sys.argv[1:2]).command
    if name is None:
        parser.print_help()
        sys.exit(0)
    if name not in COMMANDS:
        known = [*OF_LIGHTNING, *COMMANDS]
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
        parser.error(f"there is no command {name!r}; {hint}")
    return name


def _listing() -> str:
    about = OF_LIGHTNING | {name: command.help for name, command in COMMANDS.items()}
    width = max(map(len, about))
    return "\n".join(["commands:", *(f"  {name:{width}}  {help}" for name, help in about.items())])


def _function(command: _Command) -> Callable[..., Any]:
    module = import_module(f"pile_lightning.cli.{command.module}")
    found: Callable[..., Any] = getattr(module, command.function)
    return found


def command_parser(name: str) -> Any:
    """Return the parser of a command."""
    command = COMMANDS[name]
    function = _function(command)
    if command.parser is not None:
        module = import_module(f"pile_lightning.cli.{command.module}")
        parser = getattr(module, command.parser)()
    else:
        from pile_lightning.cli.short_errors import ShortErrorParser

        summary = (function.__doc__ or "").partition("\n")[0]
        parser = ShortErrorParser(description=summary)
        parser.add_function_arguments(function, as_positional=True)
    parser.prog = f"pile {name}"
    return parser


def _run(name: str, parser: Any, settings: Any, arguments: Sequence[str]) -> None:
    command = COMMANDS[name]
    if command.arguments:
        _function(command)(parser, settings, arguments)
    else:
        _function(command)(**vars(settings))
