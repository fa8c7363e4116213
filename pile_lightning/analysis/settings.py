"""Which of several settings is best, each of which may have been trained with several seeds.

A setting that some seed did not bring to the end is worse than all that every seed did: what
diverges now and then is nothing to spend a large run on. Among the others the mean decides.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Setting", "rank_settings", "tried"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting and what it reached."""

    names: tuple[str, ...]
    """Of its members that trained to the end."""
    loss: float
    """Their mean held-out bits per byte."""
    spread: float
    """From the lowest to the highest of them."""
    num_lost: int
    """Members that did not train to the end."""


def rank_settings(rows: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """Return settings, the best first; those of which no member trained to the end are left out.

    Args:
        rows: Of each member ``name``, ``setting`` (plain data without the seed),
            ``bits_per_byte`` and ``stopped_step``.

    Example:
        >>> ended = {"stopped_step": None, "setting": {"lr": 0.01}}
        >>> rows = [ended | {"name": "a", "bits_per_byte": 1.5},
        ...         ended | {"name": "b", "bits_per_byte": 1.75}]
        >>> rank_settings(rows)
        [Setting(names=('a', 'b'), loss=1.625, spread=0.25, num_lost=0)]
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row["setting"], sort_keys=True), []).append(row)
    found = []
    for group in groups.values():
        ended = [
            row
            for row in group
            if row["stopped_step"] is None and math.isfinite(row["bits_per_byte"])
        ]
        losses = [row["bits_per_byte"] for row in ended]
        if ended:
            found.append(
                Setting(
                    names=tuple(row["name"] for row in ended),
                    loss=sum(losses) / len(losses),
                    spread=max(losses) - min(losses),
                    num_lost=len(group) - len(ended),
                )
            )
    return sorted(found, key=lambda setting: (setting.num_lost > 0, setting.loss))


def tried(rows: Sequence[Mapping[str, Any]], field: str, best: Mapping[str, Any]) -> list[Any]:
    """Return the values of a field that were tried where all other fields were those of the best.

    Also those that were stopped: they say that the best has a neighbour that is worse.

    Args:
        rows: Of each member ``swept``, its values by field.
        field: The field.
        best: The values of the best by field.

    Example:
        >>> rows = [{"swept": {"lr": lr, "seed": 0}} for lr in (0.1, 0.3)]
        >>> tried(rows, "lr", {"lr": 0.1, "seed": 1})
        [0.1, 0.3]
    """
    others = _without(best, field)
    values = [
        row["swept"][field]
        for row in rows
        if field in row["swept"] and _without(row["swept"], field) == others
    ]
    apart = {json.dumps(value, sort_keys=True): value for value in values}
    return list(apart.values())


def _without(swept: Mapping[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in swept.items() if name not in (field, "seed")}
