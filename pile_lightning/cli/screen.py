"""What a user sees: our own words, and none that they can do nothing about."""

import logging
import textwrap
import warnings

from lightning.pytorch.utilities import rank_zero_only

from pile_lightning.callbacks.text_table import COLUMNS

__all__ = ["quieten", "say", "wrapped"]

WARNINGS = (
    r".*does not have many workers.*",  # prepared rows are faster without
    r".*Checkpoint directory .* exists and is not empty.*",  # it is the run's
    r".*treespec, LeafSpec.*",
    r"No seed found, seed set to.*",
    r".*`tensorboardX` has been removed.*",
    r".*callbacks used to create the checkpoint.*",  # validating needs no clock and no best score
    r"Couldn't infer the batch indices.*",  # rows are written in the order in which they come
)


@rank_zero_only
def say(message: str) -> None:
    """Print a line, once for all ranks."""
    print(message, flush=True)


def wrapped(line: str) -> list[str]:
    """Break a sentence where the screen ends; a row of a table fits it already."""
    return [line] if line.startswith(" ") else textwrap.wrap(line, COLUMNS, break_on_hyphens=False)


def quieten() -> None:
    """Drop Lightning's tips and device lists, and the warnings above."""
    for pattern in WARNINGS:
        warnings.filterwarnings("ignore", message=pattern)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).addFilter(_is_not_chatter)
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_is_not_chatter)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_not_chatter)
    logging.getLogger("lightning.fabric.utilities.seed").addFilter(_is_not_chatter)
    for name in ("_redistribute", "_collective_utils"):  # which collectives it takes, and why
        logging.getLogger(f"torch.distributed.tensor.{name}").setLevel(logging.ERROR)


CHATTER = (
    "GPU available",
    "TPU available",
    "Tip:",
    "`Trainer.fit` stopped",
    "Seed set to",
    "Automatic Mixed Precision",
    "`weights_only` was not set",
    "Restoring states from",
    "Restored all states",
    "Loaded model weights",
    "Initializing distributed",
    "distributed_backend=",
    "Detected KeyboardInterrupt",
)


def _is_not_chatter(record: logging.LogRecord) -> bool:
    return not any(phrase in record.getMessage() for phrase in CHATTER)
