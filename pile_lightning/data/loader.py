"""Loaders of whole batches: the sequence is the same for any number of ranks and workers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pile_lightning.batch import TokenBatch
from pile_lightning.data.packing import Rows
from pile_lightning.data.share import Share
from pile_lightning.data.short_rows import ShortRows, ShortStage
from pile_lightning.data.worker_loader import load

__all__ = [
    "BatchLoader",
    "Batches",
    "FiniteBatchLoader",
    "Once",
]

Ints = npt.NDArray[np.int64]

# an order costs about 0.3 ms a call, for 8 positions as for 1000: ask for many batches at once
_ROWS_AT_ONCE = 2048
# and rows are made in blocks that stay in a core's cache, however small the batches
_TOKENS_AT_ONCE = 1 << 15


@dataclass(frozen=True)
class Once:
    """The order that gives every row once and then rows that predict nothing.

    Example:
        >>> Once(2)(np.arange(4)).tolist()
        [0, 1, -1, -1]
    """

    num_rows: int

    def __call__(self, positions: Ints) -> Ints:
        """Return the row at each position, -1 behind the last."""
        return np.where(positions < self.num_rows, positions, -1)


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
    short_rows: ShortRows | None = None
    """The same rows, cut into parts."""
    stage: ShortStage = ShortStage()
    """Which batches have them."""

    def __iter__(self) -> Iterator[TokenBatch]:
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        at_once = max(1, _ROWS_AT_ONCE // self.share.num_rows)
        for block in count():
            numbers = (block * at_once + np.arange(at_once)) * num_workers + worker
            if self.num_batches is not None:
                numbers = numbers[numbers < self.num_batches]
                if not len(numbers):
                    return
            positions = self.start + self.share.positions(numbers)
            rows = self.order(positions.ravel()).reshape(positions.shape)
            is_short = self.stage.is_short(numbers, start=self.start, share=self.share)
            if self.short_rows is not None:
                short = self.short_rows.parts_of(rows[is_short])
                yield from _batches(self.short_rows, short)
            yield from _batches(self.rows, rows[~is_short])


def _batches(rows: Rows, numbers: Ints) -> Iterator[TokenBatch]:
    """Yield a batch of rows for each line of their numbers (batches, num_rows)."""
    num_rows = numbers.shape[1]
    at_once = max(1, _TOKENS_AT_ONCE // (rows.seq_len * num_rows))
    for first in range(0, len(numbers), at_once):
        block = rows.batch(numbers[first : first + at_once].ravel())
        columns = (torch.split(cast(torch.Tensor, column), num_rows) for column in block.values())
        for parts in zip(*columns, strict=True):
            yield cast(TokenBatch, dict(zip(block, parts, strict=True)))


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
        yield from load(batches, num_workers=self.num_workers, pin_memory=self.pin_memory)

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
