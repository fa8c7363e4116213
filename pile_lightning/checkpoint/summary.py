"""What a checkpoint says of itself without its tensors: its step, when, and what was known then."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pile_lightning.checkpoint.manifest import Manifest
from pile_lightning.checkpoint.sealed_file import read_file_summary

__all__ = ["age_order", "summary_of"]


def summary_of(checkpoint: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """Return the step of a checkpoint, its number, the time, and its ``summary`` if it has one.

    The number is one more than the highest in ``folder``: clocks are set back, and differ between
    nodes, so only it says which of two checkpoints is newer.

    Args:
        checkpoint: The checkpoint.
        folder: Where it is going to be.

    Example:
        >>> checkpoint = {"global_step": 7, "summary": {"tokens": 700}, "state_dict": {}}
        >>> sorted(summary_of(checkpoint, "nowhere"))
        ['save_number', 'saved_at', 'step', 'tokens']
    """
    known = checkpoint.get("summary", {})
    return {
        "step": checkpoint.get("global_step"),
        "saved_at": time.time(),
        "save_number": 1 + max(_numbers(Path(folder)), default=0),
        **known,  # of a copy in another form, also its number
    }


def age_order(summary: Mapping[str, Any]) -> tuple[int, float, int]:
    """Return what sorts checkpoints of one folder by age, the newest last.

    Example:
        >>> age_order({"save_number": 3, "saved_at": 2.5, "step": 100})
        (3, 2.5, 100)
    """
    return int(summary.get("save_number", 0)), float(summary["saved_at"]), int(summary["step"] or 0)


def _numbers(folder: Path) -> Iterator[int]:
    """Yield the numbers of the checkpoints in a folder, also of one that a kill left aside."""
    for path in (*folder.glob("[!.]*.ckpt"), *folder.glob(".*.ckpt.old")):
        try:
            summary = Manifest.read(path).summary if path.is_dir() else read_file_summary(path)
            yield int(summary["save_number"])
        except (ValueError, TypeError, KeyError, OSError):
            continue  # of another program, or damaged
