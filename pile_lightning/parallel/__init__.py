"""What carries a network onto hardware: compilation and checkpoint files."""

from pile_lightning.parallel.checkpoint_io import AtomicCheckpointIO
from pile_lightning.parallel.compile import compile_blocks, why_not_compile
from pile_lightning.parallel.shards import load_shards, read_whole, save_shards

__all__ = [
    "AtomicCheckpointIO",
    "compile_blocks",
    "load_shards",
    "read_whole",
    "save_shards",
    "why_not_compile",
]
