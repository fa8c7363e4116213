"""What the ranks of a run tell one another while they save and load."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

__all__ = ["Group", "agree", "gather", "rank_and_size"]

Group = Any
"""A process group; None for that of all ranks."""
T = TypeVar("T")


def rank_and_size(group: Group = None) -> tuple[int, int]:
    """Return this process's rank and the number of ranks: (0, 1) without a process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def gather(value: T, group: Group = None) -> list[T]:
    """Return the values of all ranks, on every rank."""
    _, size = rank_and_size(group)
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    dist.all_gather_object(values, value, group=group)
    return values


def agree(action: Callable[[], T], group: Group = None) -> list[T]:
    """Run ``action`` on every rank and return what all of them returned; all fail where one does.

    Raises:
        OSError: Where all that failed failed so.
        ValueError: Where one failed otherwise.
    """
    result: Any = None
    failure: tuple[bool, int | None, str] | None = None
    try:
        result = action()
    except OSError as error:
        failure = (True, error.errno, str(error))
    except Exception as error:
        failure = (False, None, str(error))
        own = error
    outcomes = gather((result, failure), group)
    failures = [(rank, failed) for rank, (_, failed) in enumerate(outcomes) if failed is not None]
    if not failures:
        return [value for value, _ in outcomes]
    of_system = all(failed[0] for _, failed in failures)
    rank, (_, number, message) = next(f for f in failures if of_system or not f[1][0])
    if len(outcomes) > 1:
        message = f"rank {rank}: {message}"
    if of_system:
        raise OSError(number, message) if number is not None else OSError(message)
    raise ValueError(message) from (own if failure is not None and not failure[0] else None)
