"""What ``pile scaling`` tells of models of several sizes and lengths: the law in both."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pile_lightning.analysis import (
    Allocation,
    Cost,
    TokenFit,
    cost_between,
    distinct_counts,
    fit_token_law,
)
from pile_lightning.callbacks.text_table import percent, short, table
from pile_lightning.cli.screen import say
from pile_lightning.cli.sized_members import COUNTS, SizedMember, off_by
from pile_lightning.cli.token_law_picture import draw_token_law

__all__ = ["tell_token_law"]

_LETTERS = {
    "floor": "E",
    "scale": "A",
    "exponent": "alpha",
    "token_scale": "B",
    "token_exponent": "beta",
}
_NO_FLOOR = 0.01
"""Share of the lowest loss below which a floor cannot be told from none."""
_TIMES = (1, 10, 100)
"""Budgets, of what the costliest member took."""


def tell_token_law(
    members: Sequence[SizedMember],
    *,
    hold_out: int,
    budgets: Sequence[float] | None,
    picture: Path,
) -> None:
    """Fit a law in size and tokens to members, print it and what budgets are best spent on.

    Args:
        members: Of one text.
        hold_out: How many pairs of a size and a length, those that cost most, the law predicts.
        budgets: FLOPs; None for multiples of what the costliest member took.
        picture: The PNG to draw.

    Raises:
        ValueError: Where members leave a number of the law open.
    """
    fitted, held_out = _split(members, hold_out)
    fits = {count: _fit(fitted, count, hold_out) for count in COUNTS}
    count = min(fits, key=lambda name: fits[name].error)
    fit, num_pairs = fits[count], len({_pair(member) for member in fitted})
    say("Members.")
    say("\n".join(_table(members, fit, count)))
    say("\nL(N, D) = E + A * N^-alpha + B * D^-beta, in bits per byte,")
    say(f"N being {COUNTS[count]} and D tokens.")
    for name, letter in _LETTERS.items():
        low, high = fit.interval(name)
        say(f"  {letter:<5}  {getattr(fit.law, name):.4g}  (95 % from {low:.4g} to {high:.4g})")
    if fit.interval("floor")[0] < _NO_FLOOR * min(member.bits_per_byte for member in fitted):
        say("  The floor E is not told by these points: it may be none; train larger or longer.")
    others = [f"{percent(fits[name].error)} with {COUNTS[name]}" for name in fits if name != count]
    say(
        f"Fitted to {num_pairs} pairs of a size and a length, which lie {percent(fit.error)} off "
        f"it ({', '.join(others)})."
    )
    for line in _predictions(held_out, fit, count):
        say(line)
    cost, said = _cost(members, count)
    largest = max(_flops(member) for member in members)
    found = [
        fit.spend(each, cost, around=getattr(members[-1], count))
        for each in (budgets or [times * largest for times in _TIMES])
    ]
    say(f"\nWhat a budget C of FLOPs is best spent on, by the law; {said}.")
    say("\n".join(_budget_table(found)))
    say("The intervals tell noise, not whether the law goes on beyond what was trained.")
    draw_token_law(
        picture, members, held_out, fit, found, cost=cost, count=count, label=COUNTS[count]
    )


def _flops(member: SizedMember) -> float:
    return 6 * member.parameters * member.tokens if member.flops is None else member.flops


def _pair(member: SizedMember) -> tuple[int, float]:
    return member.parameters, round(member.tokens)


def _split(
    members: Sequence[SizedMember], hold_out: int
) -> tuple[list[SizedMember], list[SizedMember]]:
    costs = {_pair(member): _flops(member) for member in members}
    most = set(sorted(costs, key=lambda pair: costs[pair])[max(len(costs) - hold_out, 0) :])
    return (
        [member for member in members if _pair(member) not in most],
        [member for member in members if _pair(member) in most],
    )


def _fit(members: Sequence[SizedMember], count: str, hold_out: int) -> TokenFit:
    try:
        return fit_token_law(
            [getattr(member, count) for member in members],
            [member.tokens for member in members],
            [member.bits_per_byte for member in members],
        )
    except ValueError as error:
        lengths = len(distinct_counts([member.tokens for member in members]))
        raise ValueError(
            f"{error} (of the {lengths} lengths and {len({m.parameters for m in members})} sizes "
            f"that --hold_out={hold_out} leaves; runs of one length give the law in the size alone)"
        ) from None


def _table(members: Sequence[SizedMember], fit: TokenFit, count: str) -> list[str]:
    header = ["member", "tokens", "all\nparameters", "non-\nembedding", "training\nFLOPs"]
    header += ["held-out\nbits a byte", "by the\nlaw"]
    cells = [
        [
            member.name,
            short(member.tokens),
            short(member.parameters),
            short(member.non_embedding),
            "" if member.flops is None else f"{member.flops:.2e}",
            f"{member.bits_per_byte:.4f}",
            f"{float(fit.law(getattr(member, count), member.tokens)):.4f}",
        ]
        for member in members
    ]
    return table(header, cells)


def _predictions(held_out: Sequence[SizedMember], fit: TokenFit, count: str) -> list[str]:
    lines = []
    for pair in sorted({_pair(member) for member in held_out}):
        same = [member for member in held_out if _pair(member) == pair]
        measured = float(np.mean([member.bits_per_byte for member in same]))
        size, tokens = getattr(same[0], count), same[0].tokens
        predicted, low, high = fit.predict(size, tokens)
        lines.append(
            f"Left out, N = {short(size)}, D = {short(tokens)}: {predicted:.4f} predicted "
            f"({low:.4f} to {high:.4f}), {measured:.4f} measured: {off_by(predicted, measured)}."
        )
    return lines


def _cost(members: Sequence[SizedMember], count: str) -> tuple[Cost, str]:
    """Return FLOPs a token of a size, and how they are said."""
    sizes = [getattr(member, count) for member in members]
    counted = [member.flops / member.tokens for member in members if member.flops is not None]
    if len(counted) < len(members):
        return (lambda wanted: 6.0 * wanted), "C = 6 N D (not all networks count theirs)"
    said = (
        "C = D times the FLOPs a\ntoken that pile plan counts: between the sizes interpolated, "
        "beyond them in proportion to N"
    )
    return cost_between(sizes, counted), said


def _budget_table(found: Sequence[Allocation]) -> list[str]:
    header = ["C", "N", "95 %", "D", "95 %", "D / N", "bits a byte", "95 %"]
    cells = [
        [
            f"{each.flops:.2e}",
            short(each.size[0]),
            f"{short(each.size[1])} to {short(each.size[2])}",
            short(each.tokens[0]),
            f"{short(each.tokens[1])} to {short(each.tokens[2])}",
            f"{each.tokens[0] / each.size[0]:.3g}",
            f"{each.loss[0]:.4f}",
            f"{each.loss[1]:.4f} to {each.loss[2]:.4f}",
        ]
        for each in found
    ]
    return table(header, cells)
