"""A picture of a sweep: a panel for each field, a line for each setting of the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pile_lightning.analysis import Optimum
from pile_lightning.callbacks.pictures import write_png

__all__ = ["draw_sweep"]


class Curve(Protocol):
    """What is drawn of a line."""

    @property
    def field(self) -> str:
        """What is swept."""

    @property
    def others(self) -> str:
        """What the others are."""

    @property
    def values(self) -> tuple[float, ...]:
        """Of the field."""

    @property
    def losses(self) -> npt.NDArray[np.float64]:
        """Bits per byte (value, seed)."""

    @property
    def logarithmic(self) -> bool:
        """Whether the values are spaced by factors."""

    @property
    def optimum(self) -> Optimum:
        """Where it is lowest."""


def draw_sweep(picture: Path, curves: Sequence[Curve]) -> None:
    """Draw a PNG: mean over seeds with their lowest and highest, the optimum and its interval.

    Args:
        picture: The file to write.
        curves: The lines, of one field after another.
    """
    # an import of a second that only a picture should cost
    from matplotlib.figure import Figure

    fields = list(dict.fromkeys(curve.field for curve in curves))
    size = (6.5 * len(fields), 4.5)
    figure = Figure(figsize=size, layout="constrained")
    for axes, field in zip(
        figure.subplots(1, len(fields), squeeze=False).flat, fields, strict=True
    ):
        own = [curve for curve in curves if curve.field == field]
        for place, curve in enumerate(own):
            _draw_line(axes, curve, f"C{place % 10}")
        axes.set(title=field, xlabel=field.rpartition(".")[2], ylabel="held-out bits per byte")
        if own[0].logarithmic:
            axes.set_xscale("log")
        ticks = sorted({value for curve in own for value in curve.values})
        if len(ticks) <= 12:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    write_png(figure, picture)


def _draw_line(axes: Any, curve: Curve, colour: str) -> None:
    means = np.nanmean(curve.losses, axis=1)
    best = curve.optimum
    beyond = "" if best.border is None else ", at the border"
    said = f"{curve.others}: " if curve.others else ""
    label = f"{said}best at {best.value:.3g}{beyond}".replace("$", r"\$")
    if label.startswith("_"):  # such labels are left out
        label = f" {label}"
    spread = [means - np.nanmin(curve.losses, axis=1), np.nanmax(curve.losses, axis=1) - means]
    axes.errorbar(
        curve.values,
        means,
        yerr=spread if curve.losses.shape[1] > 1 else None,
        color=colour,
        marker="o",
        markersize=4,
        capsize=3,
        label=label,
    )
    axes.axvspan(best.low, best.high, color=colour, alpha=0.08, linewidth=0)
    axes.axvline(best.value, color=colour, linestyle=":" if best.border is None else "--")
