"""The command line: ``pile``, and ``train.py``, which is ``pile fit`` and its like."""

from typing import TYPE_CHECKING, Any

from pile_lightning.cli.commands import main

if TYPE_CHECKING:
    from lightning.pytorch.cli import ArgsType

    from pile_lightning.cli.pile_cli import PileCLI

__all__ = ["PileCLI", "main", "train"]


def train(args: "ArgsType" = None) -> None:
    """Run ``train.py`` with ``args``, or with those of the command line."""
    from pile_lightning.cli.pile_cli import train as run

    run(args)


def __getattr__(name: str) -> Any:
    if name == "PileCLI":  # it imports Lightning, which `pile --help` does not need
        from pile_lightning.cli.pile_cli import PileCLI

        return PileCLI
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
