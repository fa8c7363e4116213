"""The end of a sweep: held-out loss over each swept field, and where it is lowest."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from pile_lightning.analysis import Optimum, find_optimum, is_geometric
from pile_lightning.callbacks.members import Ranks
from pile_lightning.callbacks.side_files import SideFiles
from pile_lightning.callbacks.sweep_picture import draw_sweep
from pile_lightning.callbacks.text_table import table

__all__ = ["SweepCurve", "SweepPicture", "sweep_curves", "sweep_table"]

_MOST = 10
"""Lines of a field: as many colours tell apart."""


@dataclass(frozen=True, kw_only=True)
class SweepCurve:
    """Losses over one field, all others being the same."""

    field: str
    """What is swept."""
    others: str
    """What the others are."""
    values: tuple[float, ...]
    """Of the field, ascending."""
    losses: npt.NDArray[np.float64]
    """Held-out bits per byte (value, seed), nan where there is none."""
    logarithmic: bool
    """Whether the values are spaced by factors."""
    optimum: Optimum
    """Where it is lowest."""


def sweep_curves(rows: Sequence[Mapping[str, Any]]) -> list[SweepCurve]:
    """Return the curves of a sweep: by field, then the lowest first.

    Members that were stopped have no last loss and are left out, and so is a seed that some value
    has no loss with, unless none would be left. The seed itself is no field.

    Args:
        rows: As ``Ranks.ranking`` returns them.

    Example:
        >>> row = {"stopped_step": None, "seed": 0}
        >>> rows = [row | {"swept": {"optimizer.lr": lr}, "bits_per_byte": loss}
        ...         for lr, loss in ((0.01, 1.6), (0.02, 1.5), (0.04, 1.6))]
        >>> [curve] = sweep_curves(rows)
        >>> curve.field, curve.logarithmic, round(curve.optimum.value, 6)
        ('optimizer.lr', True, 0.02)
    """
    ended = [row for row in rows if row["swept"] and _has_ended(row)]
    fields = dict.fromkeys(field for row in ended for field in row["swept"] if field != "seed")
    curves = []
    for field in fields:
        having = [row for row in ended if _is_number(row["swept"].get(field))]
        logarithmic = is_geometric([row["swept"][field] for row in having])
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for row in having:
            groups.setdefault(_others(row["swept"], field, fields, ended), []).append(row)
        found = [
            curve
            for others, group in groups.items()
            if (curve := _curve(field, others, group, logarithmic)) is not None
        ]
        curves += sorted(found, key=lambda curve: float(np.nanmin(curve.losses)))
    return curves


def _has_ended(row: Mapping[str, Any]) -> bool:
    return row["stopped_step"] is None and math.isfinite(row["bits_per_byte"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _others(
    swept: Mapping[str, Any],
    field: str,
    fields: Mapping[str, None],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """Say what the fields beside ``field`` are, of those that differ in the sweep."""
    said = []
    for other in fields:
        values = {json.dumps(row["swept"].get(other), sort_keys=True) for row in rows}
        if other != field and len(values) > 1:
            value = swept.get(other)
            text = value if isinstance(value, str) else json.dumps(value)
            said.append(f"{other.rpartition('.')[2]}={text}")
    return ",".join(said)


def _curve(
    field: str, others: str, rows: Sequence[Mapping[str, Any]], logarithmic: bool
) -> SweepCurve | None:
    values = sorted({float(row["swept"][field]) for row in rows})
    if len(values) < 2:
        return None
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    losses = np.full((len(values), len(seeds)), math.nan)
    for row in rows:
        place = values.index(float(row["swept"][field])), seeds.index(row["seed"])
        losses[place] = row["bits_per_byte"]
    whole = np.isfinite(losses).all(axis=0)
    if whole.any():  # or a value would be better by the seeds that are missing
        losses = losses[:, whole]
    return SweepCurve(
        field=field,
        others=others,
        values=tuple(values),
        losses=losses,
        logarithmic=logarithmic,
        optimum=find_optimum(values, losses, logarithmic=logarithmic),
    )


def sweep_table(curves: Sequence[SweepCurve]) -> list[str]:
    r"""Return a table of optima with their intervals, and what is to be known of them.

    Args:
        curves: As :func:`sweep_curves` returns them.

    Example:
        >>> row = {"stopped_step": None, "seed": 0}
        >>> rows = [row | {"swept": {"optimizer.lr": lr}, "bits_per_byte": loss}
        ...         for lr, loss in ((0.01, 1.6), (0.02, 1.55), (0.04, 1.5))]
        >>> print("\n".join(sweep_table(sweep_curves(rows))))
          field  best at   low  high  seeds
          lr        0.04  0.02  0.04      1  the highest: try more beyond
          Of one seed, low and high are the neighbours in the grid.
    """
    shown = [curve for curve in curves if _place(curve, curves) < _MOST]
    cells = []
    for curve in shown:
        best = curve.optimum
        border = "" if best.border is None else f"the {best.border}: try more beyond"
        numbers = [f"{number:.4g}" for number in (best.value, best.low, best.high)]
        name = curve.field.rpartition(".")[2]
        cells.append([name, curve.others, *numbers, str(best.num_seeds), border])
    if not cells:
        return []
    lines = table(["field", "with", "best at", "low", "high", "seeds", ""], cells)
    notes = []
    if len(shown) < len(curves):
        notes.append(f"  And {len(curves) - len(shown)} lines of higher losses.")
    if any(curve.optimum.num_seeds == 1 for curve in shown):
        notes.append("  Of one seed, low and high are the neighbours in the grid.")
    if any(curve.optimum.num_seeds > 1 for curve in shown):
        notes.append("  Of several seeds, they are a 95 % interval, the seeds drawn anew.")
    return lines + notes


def _place(curve: SweepCurve, curves: Sequence[SweepCurve]) -> int:
    """Return which one it is among those of its field."""
    return [id(each) for each in curves if each.field == curve.field].index(id(curve))


class SweepPicture(Callback):
    """Draw ``sweep.png`` in the run's folder when a sweep ends."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw it, where there is something to draw."""
        folder = trainer.log_dir or trainer.default_root_dir  # a collective: on every rank
        if isinstance(pl_module, Ranks) and not trainer.fast_dev_run:
            self._draw(pl_module, Path(folder))

    @staticmethod
    @rank_zero_only
    def _draw(pl_module: Ranks, folder: Path) -> None:
        curves = sweep_curves(pl_module.ranking())
        shown = [curve for curve in curves if _place(curve, curves) < _MOST]
        if shown:
            picture = folder / "sweep.png"
            SideFiles().write(picture, lambda: draw_sweep(picture, shown))
