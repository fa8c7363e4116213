"""A picture of a plan: memory by layout, and the learning rate."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pile_lightning.callbacks.pictures import write_png
from pile_lightning.plan import Gpu, RankMemory

__all__ = ["draw_plan"]

Schedule = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


def draw_plan(
    picture: Path,
    *,
    factors: Schedule | None,
    memories: Mapping[str, RankMemory],
    gpu: Gpu | None,
) -> None:
    """Draw a PNG of two panels.

    Args:
        picture: The file to write.
        factors: Steps and the factors on the learning rate, if the run has an end.
        memories: What a rank holds, by the name of the layout.
        gpu: Whose memory is marked, if one is named.
    """
    # an import of a second that only a picture should cost
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, max(4, 0.4 * len(memories) + 1.5)), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_memory(left, memories, gpu)
    right.set(title="learning rate", xlabel="optimizer step", ylabel="factor")
    if factors is not None:
        right.plot(*factors)
        right.set_ylim(bottom=0)
    write_png(figure, picture)


def _draw_memory(axes: Any, memories: Mapping[str, RankMemory], gpu: Gpu | None) -> None:
    places = np.arange(len(memories))
    ends = np.zeros(len(memories))
    for name in next(iter(memories.values())).parts:
        widths = np.array([memory.parts[name] / 1e9 for memory in memories.values()])
        axes.barh(places, widths, left=ends, label=name)
        ends += widths
    if gpu is not None:
        axes.axvline(gpu.memory / 1e9, color="black", linestyle=":", label=gpu.name)
    axes.set_yticks(places, list(memories))
    axes.invert_yaxis()
    axes.set(title="memory of a rank at the peak", xlabel="GB")
    axes.legend(fontsize="small")
