"""What ``pile scaling`` tells of models trained on equally many tokens: the law in their size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pile_lightning.analysis import LEAST_SIZES, ScalingFit, fit_scaling_law
from pile_lightning.callbacks.text_table import percent, short, table
from pile_lightning.cli.scaling_picture import draw_scaling
from pile_lightning.cli.screen import say
from pile_lightning.cli.sized_members import COUNTS, SizedMember, off_by

__all__ = ["tell_size_law"]


def tell_size_law(members: Sequence[SizedMember], *, hold_out: int, picture: Path) -> None:
    """Fit a law in the size to members, print it and draw it.

    Args:
        members: Of one text and as many tokens each.
        hold_out: How many sizes, the largest, the law predicts.
        picture: The PNG to draw.

    Raises:
        ValueError: Where there are too few sizes.
    """
    fitted, held_out = _split(members, hold_out)
    fits = {count: _fit(fitted, count) for count in COUNTS}
    count = min(fits, key=lambda name: fits[name].error)
    fit = fits[count]
    say(f"Members, each trained on {short(members[0].tokens)} tokens.")
    say("\n".join(_table(members, fit, count)))
    say(f"\nL(N) = E + A * N^-alpha, in bits per byte, N being {COUNTS[count]}.")
    for name, letter in {"floor": "E", "scale": "A", "exponent": "alpha"}.items():
        low, high = fit.interval(name)
        say(f"  {letter:<5}  {getattr(fit.law, name):.4g}  (95 % from {low:.4g} to {high:.4g})")
    others = ", ".join(
        f"{percent(other.error)} with {COUNTS[name]}"
        for name, other in fits.items()
        if name != count
    )
    sizes = len({member.parameters for member in fitted})
    say(f"Fitted to {sizes} sizes, which lie {percent(fit.error)} off it ({others}).")
    for line in _predictions(held_out, fit, count):
        say(line)
    draw_scaling(picture, fitted, held_out, fit, count=count, label=COUNTS[count])


def _split(
    members: Sequence[SizedMember], hold_out: int
) -> tuple[list[SizedMember], list[SizedMember]]:
    sizes = sorted({member.parameters for member in members})
    needed = LEAST_SIZES + hold_out
    if len(sizes) < needed:
        raise ValueError(
            f"there are {len(sizes)} sizes, and {hold_out} of them left out: a law of three "
            f"numbers needs {LEAST_SIZES} besides those, {needed} in all; train more sizes, or "
            f"give more runs"
        )
    largest = set(sizes[len(sizes) - hold_out :])
    return (
        [member for member in members if member.parameters not in largest],
        [member for member in members if member.parameters in largest],
    )


def _fit(members: Sequence[SizedMember], count: str) -> ScalingFit:
    sizes = [getattr(member, count) for member in members]
    return fit_scaling_law(sizes, [member.bits_per_byte for member in members])


def _table(members: Sequence[SizedMember], fit: ScalingFit, count: str) -> list[str]:
    header = [
        "member",
        "all\nparameters",
        "non-\nembedding",
        "training\nFLOPs",
        "held-out\nbits a byte",
        "by the\nlaw",
    ]
    cells = [
        [
            member.name,
            short(member.parameters),
            short(member.non_embedding),
            "" if member.flops is None else f"{member.flops:.2e}",
            f"{member.bits_per_byte:.4f}",
            f"{float(fit.law(getattr(member, count))):.4f}",
        ]
        for member in members
    ]
    return table(header, cells)


def _predictions(held_out: Sequence[SizedMember], fit: ScalingFit, count: str) -> list[str]:
    lines = []
    for size in sorted({getattr(member, count) for member in held_out}):
        scores = [m.bits_per_byte for m in held_out if getattr(m, count) == size]
        measured = float(np.mean(scores))
        predicted, low, high = (float(value) for value in fit.predict(size))
        lines.append(
            f"Left out, N = {short(size)}: {predicted:.4f} predicted "
            f"({low:.4f} to {high:.4f}), {measured:.4f} measured: {off_by(predicted, measured)}."
        )
    return lines
