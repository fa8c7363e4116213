"""Batches through a ``DataLoader``: made in worker processes, pinned for a GPU, or both."""

import multiprocessing
import pickle
import warnings
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

from pile_lightning.data.cores import without_tokenizer_threads
from pile_lightning.data.worker_signals import outlive_signals

__all__ = ["load"]

Item = TypeVar("Item")


def load(batches: IterableDataset[Item], *, num_workers: int, pin_memory: bool) -> Iterator[Item]:
    """Yield what ``batches`` yields, from workers if there are any.

    Workers are started as ``multiprocessing`` starts processes here: where that is no fork (macOS,
    Windows, Python from 3.14 on), ``batches`` is pickled.

    Raises:
        TypeError: Where it cannot be.
    """
    loader: Any = DataLoader(
        batches,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=outlive_signals,
        # its own: otherwise every pass would draw from the generator of the training run
        generator=torch.Generator(),
    )
    with without_tokenizer_threads(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Got pickle error", UserWarning)  # it is said below
        try:
            loaded = iter(loader)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"{num_workers} loader workers are started by "
                f"{multiprocessing.get_start_method()!r}, which pickles what they read, and that "
                f"cannot be pickled ({error}); define sources and data modules at the top of a "
                f"file, keep open files and lambdas out of their attributes, or set num_workers=0"
            ) from error
    yield from loaded
