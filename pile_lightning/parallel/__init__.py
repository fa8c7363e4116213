"""What carries a network onto hardware: compilation and checkpoint files."""

from pile_lightning.parallel.checkpoint_io import AtomicCheckpointIO, write_checkpoint
from pile_lightning.parallel.checkpoint_paths import (
    as_file,
    checkpoint_size,
    load_whole,
    read_summary,
    verify_checkpoint,
)
from pile_lightning.parallel.compile import compile_blocks, why_not_compile
from pile_lightning.parallel.shards import load_shards, read_whole, save_shards

__all__ = [
    "AtomicCheckpointIO",
    "as_file",
    "checkpoint_size",
    "compile_blocks",
    "load_shards",
    "load_whole",
    "read_summary",
    "read_whole",
    "save_shards",
    "verify_checkpoint",
    "why_not_compile",
    "write_checkpoint",
]
