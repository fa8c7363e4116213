"""The systems that ``peers.py`` puts beside one another, a file each."""

from tests.benchmarks.systems import (
    hugging_face,
    lit_gpt,
    nano_gpt,
    ours,
    torch_titan,
    x_transformers,
)
from tests.benchmarks.systems.system import SIZES, Size, System, Trainee

__all__ = ["SIZES", "Size", "System", "Trainee", "all_systems"]


def all_systems(size: Size) -> list[System]:
    """Ours first, then the peers, also those that are missing."""
    peers = (lit_gpt, nano_gpt, torch_titan, hugging_face, x_transformers)
    return [*ours.systems(size), *(peer.system() for peer in peers)]
