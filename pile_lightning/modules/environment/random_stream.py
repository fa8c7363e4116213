"""A stream of random numbers of one's own, beside that of the process."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

__all__ = ["RandomStream"]


class RandomStream:
    """What a process draws after ``seed_everything(seed)``, while others draw what they like.

    Args:
        seed: Of the stream.

    Example:
        >>> stream = RandomStream(1)
        >>> with stream.drawn():
        ...     first = torch.rand(1)
        >>> with stream.drawn():
        ...     second = torch.rand(1)
        >>> _ = torch.manual_seed(1)
        >>> torch.equal(torch.cat([first, second]), torch.cat([torch.rand(1), torch.rand(1)]))
        True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._states: dict[str, Tensor] = {"cpu": torch.Generator().manual_seed(seed).get_state()}

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw torch's numbers from this stream, and go on with it the next time."""
        outside = _states()
        if "cuda" in outside and "cuda" not in self._states:
            torch.cuda.manual_seed(self.seed)
            self._states["cuda"] = torch.cuda.get_rng_state()
        _set(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _set(outside)

    @contextmanager
    def built(self) -> Iterator[None]:
        """Draw Python's and numpy's numbers as well, from their beginning.

        Setting their states takes 130 us, too much for every forward.
        """
        with isolate_rng(), self.drawn():
            random.seed(self.seed)
            np.random.seed(self.seed % 2**32)
            yield

    def state_dict(self) -> dict[str, Tensor]:
        """Return where the stream is."""
        return dict(self._states)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from there."""
        self._states = {name: each.cpu() for name, each in state.items()}


def _states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if _uses_cuda():  # of this process's device alone
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and _uses_cuda():
        torch.cuda.set_rng_state(states["cuda"])


def _uses_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
