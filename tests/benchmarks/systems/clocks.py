"""What time is: that of the process on its cores, that on the wall, or that of a GPU."""

import time
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["CLOCKS", "Clock", "device_seconds", "process_seconds", "wall_seconds"]

Clock = Callable[[Callable[[], Any]], float]
"""Runs what it is given and returns the seconds that it took."""


def process_seconds(work: Callable[[], Any]) -> float:
    """Count the CPU time of all threads: what others do on the machine counts little."""
    start = time.process_time()
    work()
    return time.process_time() - start


def wall_seconds(work: Callable[[], Any]) -> float:
    """Count the time that passes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def device_seconds(
    work: Callable[[], Any],
    *,
    make_event: Callable[[], Any] = lambda: torch.cuda.Event(enable_timing=True),
) -> float:
    """Count what passes on the GPU between two marks in its queue, its own waits included."""
    start, end = make_event(), make_event()
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


CLOCKS: dict[str, Clock] = {
    "process": process_seconds,
    "wall": wall_seconds,
    "device": device_seconds,
}
