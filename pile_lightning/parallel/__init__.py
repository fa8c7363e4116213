"""What carries a network onto hardware: splitting, recomputing, compiling and sharding it."""

from pile_lightning.parallel.build import build_for, build_network, build_sharded
from pile_lightning.parallel.compile import compile_blocks, for_many_shapes, why_not_compile
from pile_lightning.parallel.fsdp1 import BlockFSDPStrategy
from pile_lightning.parallel.layout import Layout
from pile_lightning.parallel.members import SpreadStrategy, check_spreads, num_step_ranks
from pile_lightning.parallel.norm import clip, clip_by_norm, global_norm
from pile_lightning.parallel.recompute import RECOMPUTE, Recompute, recompute_blocks
from pile_lightning.parallel.strategy import ShardedStrategy, launched_ranks
from pile_lightning.parallel.tensor import TensorParallel

__all__ = [
    "RECOMPUTE",
    "BlockFSDPStrategy",
    "Layout",
    "Recompute",
    "ShardedStrategy",
    "SpreadStrategy",
    "TensorParallel",
    "build_for",
    "build_network",
    "build_sharded",
    "check_spreads",
    "clip",
    "clip_by_norm",
    "compile_blocks",
    "for_many_shapes",
    "global_norm",
    "launched_ranks",
    "num_step_ranks",
    "recompute_blocks",
    "why_not_compile",
]
