"""The memory of a step, above what is held between steps."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

__all__ = ["UNPOOLED", "StepMemory", "step_memory"]

UNPOOLED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Environment of a process in which the system gets freed memory back at once, so that what it
counts are tensors."""


class StepMemory(NamedTuple):
    """Bytes."""

    held: int
    """Between steps."""
    step: int
    """More than that at the peak of a step."""


def step_memory(step: Callable[[], Any], tidy: Callable[[], Any], device: str) -> StepMemory:
    """Measure the peak of ``step`` over what is there after ``tidy``.

    The largest resident size of this process, which Linux can reset; elsewhere what compilation
    needed hides what a step needs, if that was more.
    """
    if device == "cuda":
        tidy()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return StepMemory(held, torch.cuda.max_memory_allocated() - held)
    tidy()
    peak = Path("/proc/self/clear_refs")
    if not peak.exists():
        return StepMemory(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    peak.write_text("5")
    held = _status("VmRSS")
    step()
    return StepMemory(held, _status("VmHWM") - held)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
