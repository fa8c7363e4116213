"""``pile completion``: a script by which a shell completes commands, settings and configs."""

from argparse import Action, ArgumentParser
from collections.abc import Sequence
from inspect import signature
from typing import Any, Literal, get_args

from pile_lightning.cli.commands import COMMANDS, OF_LIGHTNING, command_parser
from pile_lightning.cli.short_errors import ShortErrorParser
from pile_lightning.shipped_configs import config_names

__all__ = ["completion_parser", "completion_script", "print_completion"]

Shell = Literal["bash", "zsh"]
_OF_PLAN = ["--gpu", "--gpus", "--gpus_per_node", "--efficiency", "--picture"]
_CONFIGS = {"bash": "_pile_configs", "zsh": "_pile_configs"}
_FUNCTIONS = {
    "bash": '_pile_configs() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
    "zsh": "_pile_configs() {{ compadd -- {names}; _files }}",
}


def completion_parser() -> ShortErrorParser:
    """Return the parser of the command."""
    parser = ShortErrorParser(
        description="Print a script that completes what is typed after `pile`. For bash: pile "
        "completion bash > ~/.local/share/bash-completion/completions/pile; for zsh: pile "
        "completion zsh > FOLDER/_pile, where FOLDER is in $fpath."
    )
    parser.add_argument("shell", type=Shell, help="Which shell reads it.")
    return parser


def print_completion(shell: Shell) -> None:
    """Print the script of a shell."""
    print(completion_script(shell))


def completion_script(shell: Shell) -> str:
    """Return a script that completes commands, settings, their values, and shipped configs."""
    import shtab

    root = ArgumentParser(prog="pile")
    commands = root.add_subparsers(dest="command")
    of_fit = [a for a in _settings("plan") if not set(a.option_strings) & set(_OF_PLAN)]
    for name, about in OF_LIGHTNING.items():
        _add_settings(commands.add_parser(name, help=about), of_fit)
    for name, command in COMMANDS.items():
        _add_settings(commands.add_parser(name, help=command.help), _settings(name))
    names = " ".join(config_names())
    functions: Any = {name: text.format(names=names) for name, text in _FUNCTIONS.items()}
    script: str = shtab.complete(root, shell=shell, preamble=functions)
    return script


def _settings(command: str) -> list[Action]:
    return [action for action in command_parser(command)._actions if action.dest != "help"]


def _add_settings(parser: ArgumentParser, actions: Sequence[Action]) -> None:
    """Add settings to a parser, with the values or files that each takes."""
    import shtab

    for action in actions:
        flag: dict[str, Any] = {"action": "store_true"} if action.nargs == 0 else {}
        plain: Any = parser.add_argument(*(action.option_strings or [action.dest]), **flag)
        values = get_args(getattr(action, "_typehint", None))
        if action.dest == "config" or (action.dest, action.option_strings) == ("name", []):
            plain.complete = _CONFIGS
        elif values and all(isinstance(value, str) for value in values):
            plain.choices = values
        elif not flag:
            plain.complete = shtab.FILE
    known = {option for action in actions for option in action.option_strings}
    # of the model and the data that stand by default
    from pile_lightning.data import TextData
    from pile_lightning.modules import CausalLM

    for name, kind in (("model", CausalLM), ("data", TextData)):
        if f"--{name}" in known:
            for field in signature(kind).parameters:
                parser.add_argument(f"--{name}.{field}")
