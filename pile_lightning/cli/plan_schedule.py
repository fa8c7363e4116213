"""The learning rate of a planned run."""

import numpy as np
import numpy.typing as npt

from pile_lightning.cli.plan_run import Run

__all__ = ["schedule_lines", "schedule_of"]

_POINTS = 1000


def schedule_of(run: Run) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | None:
    """Return steps and factors on the learning rate; None where the run has no end."""
    if run.max_steps < 1:
        return None
    factor = run.module.schedule_config.build(total=run.max_steps)
    last = run.max_steps - 1
    steps = np.unique(np.linspace(0, last, min(_POINTS, run.max_steps)).round().astype(np.int64))
    return steps, np.array([factor(step) for step in steps.tolist()])


def schedule_lines(run: Run) -> list[str]:
    """Return the factor at the start, where it is largest, half way and at the end."""
    found = schedule_of(run)
    if found is None:
        return []
    steps, factors = found
    places = {0, int(factors.argmax()), len(steps) // 2, len(steps) - 1}
    listed = ", ".join(f"{factors[place]:.3g} at step {steps[place]:,}" for place in sorted(places))
    kind = type(run.module.schedule_config).__name__
    return [f"Learning rate, {kind}: times {listed}."]
