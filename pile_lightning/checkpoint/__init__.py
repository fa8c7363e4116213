"""Checkpoint files and folders: written whole or not at all, checked when read, of any layout.

``io`` is what a trainer saves and loads with; ``paths`` is the one door for readers. A file is made
by ``sealed_file``; a folder by ``staging``, ``shards`` and ``manifest``, from the parts that ranks
hold (``chunks``); ``swap`` puts either in its place.
"""

from pile_lightning.checkpoint.io import AtomicCheckpointIO, write_checkpoint
from pile_lightning.checkpoint.paths import (
    check_readable,
    checkpoint_size,
    load_whole,
    read_checkpoint,
    read_summary,
    verify_checkpoint,
)
from pile_lightning.checkpoint.shards import load_shards, read_whole, save_shards
from pile_lightning.checkpoint.summary import age_order

__all__ = [
    "AtomicCheckpointIO",
    "age_order",
    "check_readable",
    "checkpoint_size",
    "load_shards",
    "load_whole",
    "read_checkpoint",
    "read_summary",
    "read_whole",
    "save_shards",
    "verify_checkpoint",
    "write_checkpoint",
]
