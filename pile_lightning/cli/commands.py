"""``pile``: the commands beside training."""

import sys

from pile_lightning.cli.errors import readable_errors
from pile_lightning.cli.generate import generate

__all__ = ["main"]


def main() -> None:
    """Run one command of ``pile``."""
    from jsonargparse import auto_cli

    from pile_lightning.cli.parser import ShortErrorParser

    with readable_errors():
        auto_cli(
            {"generate": generate},
            prog="pile",
            description="What to do with a trained model.",
            parser_class=ShortErrorParser,
        )
    sys.stdout.flush()
