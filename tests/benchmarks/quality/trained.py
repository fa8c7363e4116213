"""What a run of any system tells, and the steps that fit into a time by what a short one told."""

from pathlib import Path
from typing import NamedTuple, Protocol

__all__ = ["Candidate", "Scored", "Trained", "steps_within"]


class Trained(NamedTuple):
    """A process that has trained and ended."""

    seconds: float
    """From its start to the end of the last step: imports and compilation, no scoring."""
    seconds_a_step: float
    """On the wall, once it is warm."""
    steps: int


class Scored(NamedTuple):
    """What the weights of a run are worth, and how many they are."""

    bits_per_byte: float
    """Of the held-out text."""
    parameters: int
    """All of them, tied ones once."""
    looked_up: int
    """Those of them in embeddings and other tables of which a token reads a row."""


class Candidate(Protocol):
    """A system with its settings."""

    @property
    def system(self) -> str:
        """Whose it is."""
        ...

    @property
    def settings(self) -> str:
        """What tells it from the system's other candidates."""
        ...

    @property
    def tokens_a_step(self) -> int:
        """Positions of a batch."""
        ...

    def train(self, steps: int, folder: Path) -> Trained:
        """Train in a process of its own, with a schedule over ``steps``, and leave the weights."""
        ...

    def score(self, folder: Path) -> Scored:
        """Score the weights that were left in ``folder`` on the held-out text."""
        ...


def steps_within(seconds: float, tried: Trained) -> int:
    """Return how many steps fit into ``seconds``, start included.

    Example:
        >>> steps_within(180, Trained(seconds=30, seconds_a_step=0.1, steps=50))
        1550
    """
    start = tried.seconds - tried.steps * tried.seconds_a_step
    return max(2, round((seconds - start) / tried.seconds_a_step))
