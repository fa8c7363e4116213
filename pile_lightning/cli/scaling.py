"""``pile scaling``: the law by which loss falls with size and tokens, and what it says of more."""

from collections.abc import Sequence
from pathlib import Path

from pile_lightning.analysis import distinct_counts
from pile_lightning.cli.screen import say
from pile_lightning.cli.short_errors import ShortErrorParser
from pile_lightning.cli.size_law import tell_size_law
from pile_lightning.cli.sized_members import SizedMember, read_sized_members
from pile_lightning.cli.token_law import tell_token_law

__all__ = ["scaling", "scaling_parser"]


def scaling_parser() -> ShortErrorParser:
    """Return the parser of the command."""
    parser = ShortErrorParser(
        description="Fit a scaling law to the last held-out bits per byte of models of several "
        "sizes, and predict the largest from the others. Where all were trained on as many "
        "tokens, it is L(N) = E + A * N^-alpha; runs of several lengths give "
        "L(N, D) = E + A * N^-alpha + B * D^-beta, and what size a budget is best spent on."
    )
    parser.add_argument(
        "runs", type=str, nargs="+", help="Folders of runs of environments, such as runs/sizes."
    )
    parser.add_argument(
        "--hold_out",
        type=int,
        default=1,
        help="How many sizes, the largest, the law is not fitted to but predicts; with several "
        "lengths, how many pairs of a size and a length, those that cost most.",
    )
    parser.add_argument(
        "--budget",
        type=float,
        nargs="+",
        help="Training FLOPs to spend at best; by default what the largest member cost, and 10 "
        "and 100 times that. For runs of several lengths.",
    )
    parser.add_argument(
        "--picture", type=str | None, help="PNG to draw; scaling.png in the first run by default."
    )
    return parser


def scaling(
    runs: Sequence[str],
    *,
    hold_out: int = 1,
    budget: Sequence[float] | None = None,
    picture: str | None = None,
) -> None:
    """Fit a scaling law to the members of runs, print it and draw it.

    Args:
        runs: Folders of runs of environments.
        hold_out: How many sizes, the largest, the law predicts; with several lengths, pairs.
        budget: FLOPs that runs of several lengths say how to spend.
        picture: The PNG to draw; scaling.png in the folder of the first run by default.

    Raises:
        FileNotFoundError: Where a folder is no run.
        ValueError: Where there are too few sizes or lengths, or members that no one law is of.
    """
    if hold_out < 0:
        raise ValueError(f"--hold_out={hold_out}: it counts what is left out; give 0 or more")
    if any(not each > 0 for each in budget or ()):
        raise ValueError(f"--budget={budget}: budgets are FLOPs; give numbers above 0, as 1e15")
    members: list[SizedMember] = []
    for run in runs:
        found, left_out = read_sized_members(Path(run))
        members += found
        for name, reason in left_out.items():
            say(f"{run}: {name} is left out: {reason}.")
    members.sort(key=lambda member: (member.parameters, member.name, member.tokens))
    _check_alike(members)
    path = Path(runs[0]) / "scaling.png" if picture is None else Path(picture)
    if len(distinct_counts([member.tokens for member in members])) > 1:
        tell_token_law(members, hold_out=hold_out, budgets=budget, picture=path)
    elif budget is not None:
        raise ValueError(
            f"--budget={budget} asks what size and tokens are best, and all members were trained "
            f"on as many tokens; give runs of three lengths at least, or leave --budget out"
        )
    else:
        tell_size_law(members, hold_out=hold_out, picture=path)
    say(f"\nDrawn: {path}")


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
