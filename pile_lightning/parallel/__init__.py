"""What carries a network onto hardware: compiling, sharding, and checkpoint files."""

from pile_lightning.parallel.build import build_for, build_network, build_sharded
from pile_lightning.parallel.checkpoint_io import AtomicCheckpointIO, write_checkpoint
from pile_lightning.parallel.checkpoint_paths import (
    as_file,
    checkpoint_size,
    load_whole,
    read_summary,
    verify_checkpoint,
)
from pile_lightning.parallel.compile import compile_blocks, why_not_compile
from pile_lightning.parallel.fsdp1 import BlockFSDPStrategy
from pile_lightning.parallel.layout import Layout
from pile_lightning.parallel.norm import clip, clip_by_norm, global_norm
from pile_lightning.parallel.recompute import RECOMPUTE, Recompute, recompute_blocks
from pile_lightning.parallel.shards import load_shards, read_whole, save_shards
from pile_lightning.parallel.strategy import ShardedStrategy, launched_ranks
from pile_lightning.parallel.tensor import TensorParallel

__all__ = [
    "RECOMPUTE",
    "AtomicCheckpointIO",
    "BlockFSDPStrategy",
    "Layout",
    "Recompute",
    "ShardedStrategy",
    "TensorParallel",
    "as_file",
    "build_for",
    "build_network",
    "build_sharded",
    "checkpoint_size",
    "clip",
    "clip_by_norm",
    "compile_blocks",
    "global_norm",
    "launched_ranks",
    "load_shards",
    "load_whole",
    "read_summary",
    "read_whole",
    "recompute_blocks",
    "save_shards",
    "verify_checkpoint",
    "why_not_compile",
    "write_checkpoint",
]
