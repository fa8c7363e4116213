"""A picture of a scaling law: loss over size and over the cost of training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pile_lightning.analysis import ScalingFit
from pile_lightning.callbacks.pictures import write_png
from pile_lightning.cli.sized_members import SizedMember

__all__ = ["draw_scaling"]


def draw_scaling(
    picture: Path,
    fitted: Sequence[SizedMember],
    held_out: Sequence[SizedMember],
    fit: ScalingFit,
    *,
    count: str,
    label: str,
) -> None:
    """Draw a PNG of two panels.

    Args:
        picture: The file to write.
        fitted: Members that the law is fitted to.
        held_out: Those that it predicts.
        fit: The law.
        count: The field that is N.
        label: What N is called.
    """
    # an import of a second that only a picture should cost
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    by_size, by_cost = figure.subplots(1, 2, sharey=True)
    sizes = [getattr(member, count) for member in (*fitted, *held_out)]
    grid = np.geomspace(min(sizes) / 1.2, max(sizes) * 1.5, 100)
    middle, low, high = fit.predict(grid)
    law = fit.law
    said = f"{law.floor:.3g} + {law.scale:.3g} N^-{law.exponent:.3g}"
    by_size.plot(grid, middle, color="C0", label=said)
    by_size.fill_between(grid, low, high, color="C0", alpha=0.2, linewidth=0, label="95 %")
    groups = {"fitted": (fitted, "C0"), "left out": (held_out, "C1")}
    for name, (members, colour) in groups.items():
        look = {"color": colour, "linestyle": "", "marker": "o", "label": name}
        if members:
            scores = [member.bits_per_byte for member in members]
            by_size.plot([getattr(member, count) for member in members], scores, **look)
        points = [(m.flops, m.bits_per_byte) for m in members if m.flops is not None]
        if points:
            by_cost.plot(*zip(*points, strict=True), **look)
    by_size.set(title="loss over size", xlabel=label, ylabel="held-out bits per byte")
    by_cost.set(title="loss over cost", xlabel="training FLOPs of a member")
    for axes in (by_size, by_cost):
        axes.set(xscale="log", yscale="log")
        # of less than a decade there would be no tick, or labels one over another
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter("{x:.0e}")
        axes.yaxis.set_major_locator(MaxNLocator(8))
        axes.yaxis.set_major_formatter("{x:g}")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    write_png(figure, picture)
