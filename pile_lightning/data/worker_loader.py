"""Items of a data set, made in worker processes and sent through a pipe.

torch sends tensors through shared memory: a file in ``/dev/shm`` and a descriptor for each. Where
that is small, as in a container (64 MB) or a sandbox, a batch is lost there and the loader waits
for it forever; where few files may be open, it fails. A batch of text is small, and as arrays it
fits through the pipe that its descriptor would take.
"""

import multiprocessing
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from pile_lightning.data.cores import without_tokenizer_threads
from pile_lightning.data.worker_signals import outlive_signals

__all__ = ["load"]

Item = TypeVar("Item")


def load(items: IterableDataset[Item], *, num_workers: int, pin_memory: bool) -> Iterator[Item]:
    """Yield the items of a data set.

    Args:
        items: What to load; of W workers each yields its own.
        num_workers: Processes; 0 for none but this one.
        pin_memory: Whether tensors are to be in page-locked memory, for a GPU.

    Raises:
        TypeError: If workers are not forked (macOS, Windows, Python from 3.14 on), and the data set
            cannot be pickled.
    """
    made: Iterator[Any] = _from_workers(items, num_workers) if num_workers else iter(items)
    if not (num_workers or pin_memory):
        yield from made
        return
    for item in made:
        tensors = _map(item, np.ndarray, torch.from_numpy) if num_workers else item
        yield _map(tensors, Tensor, Tensor.pin_memory) if pin_memory else tensors


def _from_workers(items: IterableDataset[Item], num_workers: int) -> Iterator[Any]:
    loader: DataLoader[Item] = DataLoader(
        items,
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_to_arrays,
        worker_init_fn=outlive_signals,
        # its own: otherwise every pass would draw from the generator of the training run
        generator=torch.Generator(),
    )
    with without_tokenizer_threads(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Got pickle error", UserWarning)  # it is said below
        try:
            return iter(loader)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"{num_workers} loader workers are started by "
                f"{multiprocessing.get_start_method()!r}, which pickles what they read, and that "
                f"cannot be pickled ({error}); define sources and data modules at the top of a "
                f"file, keep open files and lambdas out of their attributes, or set num_workers=0"
            ) from error


def _to_arrays(item: Any) -> Any:
    return _map(item, Tensor, Tensor.numpy)


def _map(item: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Return a batch, or a named tuple with one in it, with its tensors or arrays changed."""
    if isinstance(item, kind):
        return change(item)
    if isinstance(item, dict):
        return {name: _map(value, kind, change) for name, value in item.items()}
    if isinstance(item, tuple):
        return type(item)(*(_map(value, kind, change) for value in item))
    return item
