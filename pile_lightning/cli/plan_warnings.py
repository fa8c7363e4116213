"""What is wrong with a planned run, or will be."""

import shutil
from pathlib import Path

from pile_lightning.cli.plan_figures import Figures
from pile_lightning.cli.plan_lines import size

__all__ = ["checkpoint_lines", "warning_lines"]

_COPIES = 3
"""Of a checkpoint: the last, the best, and the one that is being written."""


def warning_lines(figures: Figures, folder: Path) -> list[str]:
    """Return a line for each thing that will stop the run, or that its owner may not want.

    Args:
        figures: Those of the run.
        folder: The run's folder.
    """
    found = [
        *_uneven(figures),
        *_too_large(figures),
        *_few_tokens(figures),
        *_full_disk(figures, folder),
    ]
    return [f"Warning: {line}" for line in found]


def checkpoint_lines(figures: Figures, folder: Path) -> list[str]:
    """Return how large a checkpoint is, and what is free."""
    place, free = _free(folder)
    return [
        f"A checkpoint takes {size(figures.checkpoint_bytes)}; {size(free)} are free at {place}."
    ]


def _uneven(figures: Figures) -> list[str]:
    run = figures.run
    parts, rows = run.layout.num_row_ranks * run.accumulate, run.data.batch_size
    if rows % parts == 0:
        return []
    nearest = max(1, round(rows / parts)) * parts
    return [
        f"data.batch_size={rows} is not a multiple of {_ranks(run.layout.num_row_ranks)} with rows "
        f"of their own x {run.accumulate} accumulated batches, and train.py will refuse it; choose "
        f"for example {nearest}."
    ]


def _too_large(figures: Figures) -> list[str]:
    run = figures.run
    memory = figures.memory(run.layout)
    if run.gpu is None or figures.fits(memory):
        return []
    line = (
        f"a rank needs {size(memory.peak)} under {run.layout.name}, and the {run.gpu.name} has "
        f"{size(run.gpu.memory)}"
    )
    better = figures.first_that_fits()
    if better is None:
        return [
            f"{line}; nor does another layout of {_ranks(run.layout.num_ranks)} fit: take more "
            f"GPUs, or accumulate more batches."
        ]
    layout, kind = better
    changes = []
    if layout != run.layout:
        changes.append(layout.name)
    if kind != run.checkpointing:
        changes.append(f"activation_checkpointing: {kind}")
    needs = size(figures.memory(layout, kind).peak)
    return [f"{line}; {' with '.join(changes)} fits, with {needs}."]


def _few_tokens(figures: Figures) -> list[str]:
    run, total = figures.run, figures.counts.total
    tokens = run.max_steps * run.tokens
    if run.max_steps < 1 or tokens >= total:
        return []
    return [
        f"{tokens / total:.2g} tokens a parameter are few: a smaller network would learn as much "
        f"(compute-optimal are about 20, Hoffmann et al., arXiv 2203.15556)."
    ]


def _full_disk(figures: Figures, folder: Path) -> list[str]:
    needed, (place, free) = figures.checkpoint_bytes, _free(folder)
    if free >= _COPIES * needed:
        return []
    return [
        f"{size(free)} are free at {place}, and {_COPIES} checkpoints of {size(needed)} (the last, "
        f"the best, and one being written) will not fit."
    ]


def _free(folder: Path) -> tuple[Path, int]:
    """Return the nearest folder that is there already, and what is free on its disk."""
    folder = folder.absolute()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    return place, shutil.disk_usage(place).free


def _ranks(number: int) -> str:
    return "one rank" if number == 1 else f"{number:,} ranks"
