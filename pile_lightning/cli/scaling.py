"""``pile scaling``: the law by which loss falls with size, and what it says of a larger one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pile_lightning.analysis import LEAST_SIZES, ScalingFit, fit_scaling_law
from pile_lightning.callbacks.text_table import percent, short, table
from pile_lightning.cli.parser import ShortErrorParser
from pile_lightning.cli.scaling_picture import draw_scaling
from pile_lightning.cli.screen import say
from pile_lightning.cli.sized_members import SizedMember, read_sized_members

__all__ = ["scaling", "scaling_parser"]

COUNTS = {"non_embedding": "non-embedding parameters", "parameters": "all parameters"}
"""What N may be: fields of a member, and what they are called."""


def scaling_parser() -> ShortErrorParser:
    """Return the parser of the command."""
    parser = ShortErrorParser(
        description="Fit a scaling law, L(N) = E + A * N^-alpha, to the last held-out bits per "
        "byte of models of several sizes that were trained on as many tokens each, and predict "
        "the largest from the others."
    )
    parser.add_argument(
        "runs", type=str, nargs="+", help="Folders of runs of environments, such as runs/sizes."
    )
    parser.add_argument(
        "--hold_out",
        type=int,
        default=1,
        help="How many sizes, the largest, the law is not fitted to but predicts.",
    )
    parser.add_argument(
        "--picture", type=str | None, help="PNG to draw; scaling.png in the first run by default."
    )
    return parser


def scaling(runs: Sequence[str], *, hold_out: int = 1, picture: str | None = None) -> None:
    """Fit a scaling law to the members of runs, print it and draw it.

    Args:
        runs: Folders of runs of environments.
        hold_out: How many sizes, the largest, the law predicts.
        picture: The PNG to draw; scaling.png in the folder of the first run by default.

    Raises:
        FileNotFoundError: Where a folder is no run.
        ValueError: Where there are too few sizes, or members that no one law is of.
    """
    members: list[SizedMember] = []
    for run in runs:
        found, left_out = read_sized_members(Path(run))
        members += found
        for name, reason in left_out.items():
            say(f"{run}: {name} is left out: {reason}.")
    members.sort(key=lambda member: (member.parameters, member.name))
    fitted, held_out = _split(members, hold_out)
    _check_alike(members)
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
    path = Path(runs[0]) / "scaling.png" if picture is None else Path(picture)
    draw_scaling(path, fitted, held_out, fit, count=count, label=COUNTS[count])
    say(f"\nDrawn: {path}")


def _split(
    members: Sequence[SizedMember], hold_out: int
) -> tuple[list[SizedMember], list[SizedMember]]:
    sizes = sorted({member.parameters for member in members})
    needed = LEAST_SIZES + hold_out
    if hold_out < 0:
        raise ValueError(f"--hold_out={hold_out}: it counts sizes; give a number from 0 on")
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


def _check_alike(members: Sequence[SizedMember]) -> None:
    first = members[0]
    for member in members:
        names = {**first.text, **member.text}
        differ = [name for name in names if first.text.get(name) != member.text.get(name)]
        if differ:
            raise ValueError(
                f"{first.name} and {member.name} were trained and scored on other text (they "
                f"differ in {', '.join(differ)}): their losses cannot be compared; give runs of "
                f"the same text"
            )
    least = min(members, key=lambda member: member.tokens)
    most = max(members, key=lambda member: member.tokens)
    if most.tokens > 1.01 * least.tokens:
        raise ValueError(
            f"{least.name} was trained on {short(least.tokens)} tokens and {most.name} on "
            f"{short(most.tokens)}: a law in the size alone is one of equally many; give runs of "
            f"as many tokens"
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
        off = predicted / measured - 1
        lines.append(
            f"Left out, N = {short(size)}: {predicted:.4f} predicted "
            f"({low:.4f} to {high:.4f}), {measured:.4f} measured: {percent(abs(off))} too "
            f"{'high' if off > 0 else 'low'}."
        )
    return lines
