"""Loaders of whole batches: the sequence is the same for any number of ranks and workers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pile_lightning.batch import TokenBatch
from pile_lightning.data.packing import Rows
from pile_lightning.data.tokenizers import without_tokenizer_threads

__all__ = [
    "BatchLoader",
    "Batches",
    "FiniteBatchLoader",
    "Share",
    "once",
    "without_tokenizer_threads",
]

Ints = npt.NDArray[np.int64]

# an order costs about 0.2 ms a call, for 8 positions as for 1000: ask for many batches at once
_BATCHES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which rows of a global batch one rank takes: ``num_rows``, behind those of lower ranks."""

    num_rows: int
    """Rows of a batch on each rank."""
    rank: int = 0
    """Data-parallel rank of this process."""
    num_ranks: int = 1
    """Data-parallel ranks."""

    def positions(self, batches: Ints) -> Ints:
        """Return the positions in the stream of rows that make up batches (batches, num_rows)."""
        first = (batches * self.num_ranks + self.rank) * self.num_rows
        return first[:, None] + np.arange(self.num_rows)


def once(num_rows: int) -> Callable[[Ints], Ints]:
    """Return the order that gives every row once and then rows that predict nothing.

    Example:
        >>> once(2)(np.arange(4)).tolist()
        [0, 1, -1, -1]
    """
    return lambda positions: np.where(positions < num_rows, positions, -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches(IterableDataset[TokenBatch]):
    """One rank's batches of rows in an order; of W loader workers each yields every W-th."""

    rows: Rows
    order: Callable[[Ints], Ints]
    """Row at each position of the stream; below 0, a row that predicts nothing."""
    share: Share
    start: int = 0
    """Position that the first batch of all ranks starts at."""
    num_batches: int | None = None
    """Batches to yield over all workers; None: without end."""

    def __iter__(self) -> Iterator[TokenBatch]:
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        for block in count():
            numbers = (
                block * _BATCHES_AT_ONCE + np.arange(_BATCHES_AT_ONCE)
            ) * num_workers + worker
            if self.num_batches is not None:
                numbers = numbers[numbers < self.num_batches]
                if not len(numbers):
                    return
            positions = self.start + self.share.positions(numbers)
            for rows in self.order(positions.ravel()).reshape(positions.shape):
                yield self.rows.batch(rows)


class BatchLoader:
    """Loads batches in this process or in workers, from where ``start`` says when a pass begins.

    It is not a ``DataLoader``, which Lightning would change and give advice on that does not hold
    here: rows come from a memory map faster than workers hand them over.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        start: Callable[[], int] = lambda: 0,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.batches, self.start = batches, start
        self.num_workers, self.pin_memory = num_workers, pin_memory

    def __iter__(self) -> Iterator[TokenBatch]:
        # a generator, so that no worker starts before a batch is asked for
        batches = replace(self.batches, start=self.start())
        if not (self.num_workers or self.pin_memory):
            yield from batches  # a DataLoader adds 70 us a batch
            return
        loader = DataLoader(
            batches,
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            # its own: otherwise every pass would draw from the generator of the training run
            generator=torch.Generator(),
        )
        with without_tokenizer_threads():
            loaded = iter(loader)
        yield from loaded

    def state_dict(self) -> dict[str, int]:
        """Return nothing: the data module keeps the position.

        Lightning stores a loader's state of rank 0 alone, one batch ahead of training; but it warns
        of a loader that has none to give.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Do nothing; see ``state_dict``."""


class FiniteBatchLoader(BatchLoader):
    """A loader that knows its number of batches, which is the same on all ranks."""

    def __len__(self) -> int:
        assert self.batches.num_batches is not None
        return self.batches.num_batches
