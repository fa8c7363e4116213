"""``pile prepare``: the store that a run trains from, without training."""

import shlex
from argparse import Namespace
from collections.abc import Sequence

from pile_lightning.cli.data_config import (
    DataParser,
    add_data_arguments,
    make_data,
    training_command,
)
from pile_lightning.cli.screen import say
from pile_lightning.data import StreamedText, TextData
from pile_lightning.data.store import TokenStore

__all__ = ["prepare", "prepare_if_missing", "prepare_parser"]


def prepare_parser() -> DataParser:
    """Return the parser of the command."""
    parser = DataParser(
        description="Split, tokenize and store the text of a run, as training does when it starts. "
        "What is there already is kept. Give the config and the --data arguments of train.py."
    )
    add_data_arguments(parser)
    return parser


def prepare(parser: DataParser, settings: Namespace, arguments: Sequence[str]) -> None:
    """Prepare, and say where the store lies and what comes next.

    Args:
        parser: The parser of the command.
        settings: What it parsed.
        arguments: The arguments as they were given.
    """
    prepare_if_missing(make_data(parser, settings))
    say("\nNext:")
    say(f"  pile inspect {shlex.join(arguments)}")
    say(f"  {training_command(arguments)}")


def prepare_if_missing(data: TextData | StreamedText) -> None:
    """Prepare data; a line says how much there is and where it lies, also if it was there."""
    store = TokenStore.find(data.store_path)
    if isinstance(data, StreamedText):
        say("A stream is tokenized as it is trained on; only what is held out is prepared.")
    data.prepare_data()
    if store is not None:
        counts = store.counts("train") + store.counts("val")
        say(
            f"prepared before: {counts.documents:,} documents, {counts.num_bytes / 1e6:,.1f} MB "
            f"as {counts.tokens / 1e6:,.2f} M tokens: {store.path}"
        )
        for line in store.remarks():
            say(line)
