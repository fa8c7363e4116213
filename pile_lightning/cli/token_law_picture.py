"""A picture of a law in size and tokens: loss over FLOPs by size, and the best size of a budget."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pile_lightning.analysis import Allocation, Cost, TokenFit
from pile_lightning.callbacks.pictures import write_png
from pile_lightning.cli.sized_members import SizedMember

__all__ = ["draw_token_law"]

_POINTS = 60


def draw_token_law(
    picture: Path,
    members: Sequence[SizedMember],
    held_out: Sequence[SizedMember],
    fit: TokenFit,
    budgets: Sequence[Allocation],
    *,
    cost: Cost,
    count: str,
    label: str,
) -> None:
    """Draw a PNG of two panels.

    Args:
        picture: The file to write.
        members: All members.
        held_out: Those of them that the law is not fitted to.
        fit: The law.
        budgets: What some are best spent on.
        cost: FLOPs a token of a size.
        count: The field that is N.
        label: What N is called.
    """
    # an import of a second that only a picture should cost
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullFormatter

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    by_cost, by_budget = figure.subplots(1, 2)
    sizes = sorted({float(getattr(member, count)) for member in members})
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(sizes)))
    spent = {id(m): m.tokens * float(cost(np.array([getattr(m, count)]))[0]) for m in members}
    least, most = min(spent.values()) / 2, max(spent.values()) * 10
    grid = np.geomspace(least, most, _POINTS)
    best = [fit.law.best(flops, cost, around=sizes[-1]) for flops in grid]
    for size, colour in zip(sizes, colours, strict=True):
        line = fit.law(size, grid / cost(np.array([size])))
        by_cost.plot(grid, line, color=colour, linewidth=1, label=f"N = {size:.2g}")
        for member in members:
            if getattr(member, count) == size:
                is_open = any(member is each for each in held_out)
                face = "none" if is_open else colour
                look = {"marker": "o", "color": colour, "markerfacecolor": face}
                by_cost.plot(spent[id(member)], member.bits_per_byte, linestyle="", **look)
    losses = [loss for _, _, loss in best]
    by_cost.plot(grid, losses, color="black", linestyle="--", label="best size")
    scores = [member.bits_per_byte for member in members]
    by_cost.set(
        title="loss over cost (open: left out)",
        ylabel="held-out bits per byte",
        ylim=(min(*scores, *losses) / 1.03, max(scores) * 1.1),
    )
    far = np.geomspace(least, max(most, *(each.flops for each in budgets)), _POINTS)
    by_budget.plot(
        far,
        [fit.law.best(flops, cost, around=sizes[-1])[0] for flops in far],
        color="black",
        linestyle="--",
        label="best size",
    )
    middles = np.array([each.size[0] for each in budgets])
    spread = np.array(
        [[m - each.size[1], each.size[2] - m] for m, each in zip(middles, budgets, strict=True)]
    )
    by_budget.errorbar(
        [each.flops for each in budgets],
        middles,
        yerr=np.maximum(spread, 0).T,
        color="C0",
        linestyle="",
        marker="o",
        capsize=3,
        label="budgets, 95 %",
    )
    by_budget.set(title="what a budget is best spent on", ylabel=label, yscale="log")
    for axes in (by_cost, by_budget):
        axes.set(xscale="log", xlabel="training FLOPs")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    by_cost.set_yscale("log")
    by_cost.yaxis.set_major_locator(MaxNLocator(8))
    by_cost.yaxis.set_major_formatter("{x:g}")
    by_cost.yaxis.set_minor_formatter(NullFormatter())
    write_png(figure, picture)
