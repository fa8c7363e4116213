"""What carries a network onto hardware: compilation and checkpoint files."""

from pile_lightning.parallel.checkpoint_io import AtomicCheckpointIO
from pile_lightning.parallel.compile import compile_blocks, why_not_compile

__all__ = ["AtomicCheckpointIO", "compile_blocks", "why_not_compile"]
