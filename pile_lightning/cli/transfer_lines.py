"""What ``pile transfer`` prints: the best, what of it is carried, and what changes."""

import json
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from pile_lightning.analysis import Setting, tried
from pile_lightning.callbacks.sweep import sweep_curves
from pile_lightning.callbacks.text_table import short, table
from pile_lightning.cli.swept_run import SweptRun
from pile_lightning.cli.transferred import Model
from pile_lightning.nn import DecoderConfig

__all__ = ["best_lines", "carried_lines", "change_lines"]


def best_lines(swept: SweptRun, setting: Setting, name: str) -> list[str]:
    """Return which setting it is, among how many."""
    place = list(swept.ranked).index(setting) + 1
    which = "The best" if place == 1 else f"Number {place}"
    seeds = len(setting.names)
    mean = f", the mean of {seeds} seeds {setting.spread:.4f} apart" if seeds > 1 else ""
    named = name if seeds == 1 else f"that of {name}"
    lines = [
        f"{which} of {len(swept.ranked)} settings that trained to the end, {named}: "
        f"{setting.loss:.4f} held-out bits per byte at step {swept.scored_step}{mean}.",
    ]
    if place == 1 and len(swept.ranked) > 1:
        following = swept.ranked[1]
        behind = following.loss - setting.loss
        if not following.num_lost:
            lines.append(f"The next is {following.names[0]}, {behind:.4f} behind.")
    if setting.num_lost:
        lines.append(f"{setting.num_lost} of its members did not train to the end: look at why.")
    return lines


def carried_lines(swept: SweptRun, name: str, wide: Model) -> list[str]:
    """Return the swept values that are carried, with what was tried beside them.

    Args:
        swept: The run.
        name: The member.
        wide: What it becomes, which has sizes of its own.
    """
    best = swept.swept(name)
    replaced = [field for field in best if _is_replaced(field, best[field], wide)]
    cells = [
        [field, _said(value), *_beside(swept, field, best)]
        for field, value in best.items()
        if field != "seed" and field not in replaced
    ]
    lines = ["Carried:"]
    if cells:
        lines += table(["field", "value", "tried", "lowest at", ""], cells)
    else:
        lines.append(f"  all settings of {name}, of which none was swept")
    if replaced:
        said = ", ".join(f"{field}={_said(best[field])}" for field in replaced)
        lines.append(f"Replaced, going with the size: {said}.")
    return lines


def _is_replaced(field: str, value: Any, wide: Model) -> bool:
    """Say whether a swept number of the network is another in the large one."""
    first, _, rest = field.partition(".")
    if first != "network" or not rest or not isinstance(value, int | float | str):
        return False
    if rest == "size":  # d_model and num_layers in its place, or another word
        return getattr(wide.network, "size", None) != value
    try:
        found = attrgetter(rest)(wide.network)
    except AttributeError:
        return False
    return isinstance(found, int | float) and isinstance(value, int | float) and found != value


def _beside(swept: SweptRun, field: str, best: Mapping[str, Any]) -> list[str]:
    """Return what was tried, where between it the loss is lowest, and whether that is an end."""
    values = tried(swept.rows, field, best)
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) < len(values) or len(values) < 2 or isinstance(best[field], bool):
        return [", ".join(map(_said, values)), "", ""]
    numbers.sort()
    ends = {numbers[0]: "the lowest: try more beyond", numbers[-1]: "the highest: try more beyond"}
    if numbers[0] == 0:
        ends[0] = "the lowest that there is"
    same = {key: value for key, value in best.items() if key not in (field, "seed")}
    line = [
        {**row, "swept": {field: row["swept"][field]}}
        for row in swept.rows
        if {k: v for k, v in row["swept"].items() if k not in (field, "seed")} == same
    ]
    curves = [curve for curve in sweep_curves(line) if curve.optimum.border is None]
    lowest = f"{curves[0].optimum.value:.3g}" if curves else ""
    shown = numbers if len(numbers) <= 6 else [numbers[0], "...", numbers[-1]]
    return [", ".join(map(_said, shown)), lowest, ends.get(best[field], "")]


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def change_lines(
    narrow: Model, wide: Model, before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[str]:
    """Return what is other in the large run than in the sweep, and what the rule does not cover.

    Args:
        narrow: The member.
        wide: The large model.
        before: Config of the sweep.
        after: Config of the large run.
    """
    shapes = _shape(narrow), _shape(wide)
    runs = _run(before), _run(after)
    rates = _rates(narrow), _rates(wide)
    cells = [
        [what, write(old), write(new), _times(old, new)]
        for pair, write in ((shapes, _count), (rates, "{:.4g}".format), (runs, _count))
        for what, old, new in _both(*pair)
    ]
    lines = ["What changes:", *table(["", "sweep", "large", "times"], cells)]
    beyond = [
        what
        for what, old, new in (*_both(*shapes), *_both(*runs))
        if old != new and what in ("layers", "features of a head", "tokens of a step", "steps")
    ]
    if beyond:
        lines.append(
            f"The rule is about width. It does not say whether the setting is the best for other "
            f"{', '.join(beyond)}."
        )
    return lines


def _both(old: Mapping[str, float], new: Mapping[str, float]) -> list[tuple[str, float, float]]:
    return [(what, old[what], new[what]) for what in old if what in new]


def _count(number: float) -> str:
    return f"{number:,}" if number < 100_000 else short(number)


def _times(old: float, new: float) -> str:
    return "" if old == new or not old else f"{new / old:.4g}"


def _shape(model: Model) -> dict[str, float]:
    config = model.network
    assert isinstance(config, DecoderConfig)  # or it would not have been carried
    width = config.d_model
    return {
        "width": width,
        "layers": config.num_layers,
        "heads": config.attention.num_heads,
        "features of a head": config.attention.resolve_head_dim(width),
        "hidden features": config.feed_forward.d_ff or 4 * width,
        "parameters of blocks": model.num_block_parameters(),
    }


def _rates(model: Model) -> dict[str, float]:
    config = model.network
    assert isinstance(config, DecoderConfig)
    start = config.init.embedding.resolve(config.d_model, num_layers=config.num_layers)
    rates = {f"learning rate, {what}": rate for what, rate in model.rates().items()}
    return {"start of the embedding, +-": start, **rates}


def _run(config: Mapping[str, Any]) -> dict[str, float]:
    data = (config.get("data") or {}).get("init_args") or {}
    found = {"steps": config["trainer"]["max_steps"]}
    if "batch_size" in data and "seq_len" in data:
        found["tokens of a step"] = data["batch_size"] * data["seq_len"]
    return found
