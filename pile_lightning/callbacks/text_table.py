"""Tables and numbers as a terminal shows them: aligned, within 100 columns, in few digits."""

from collections.abc import Sequence

__all__ = ["COLUMNS", "percent", "short", "table"]

COLUMNS = 100
"""Columns of a line, at most."""

_GAP = "  "
_LEAST_NAME = 12


def short(count: float) -> str:
    """Write a count in at most three digits and a letter.

    Example:
        >>> [short(count) for count in (0, 999, 1234, 99_960, 5_678_900, 3e11, 2.5e13)]
        ['0', '999', '1.23 k', '100 k', '5.68 M', '300 B', '25 T']
    """
    size, letter = float(count), ""
    for letter_above in ("k", "M", "B", "T"):
        if round(size) < 1000:
            break
        size, letter = size / 1000, f" {letter_above}"
    digits = 0 if not letter or size >= 100 else 1 if size >= 10 else 2
    text = f"{size:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + letter


def percent(share: float) -> str:
    """Write a share with three digits.

    Example:
        >>> [percent(share) for share in (1, 0.1234, 0.01234, 0.00012)]
        ['100 %', '12.3 %', '1.23 %', '0.01 %']
    """
    digits = 0 if share >= 0.9995 else 1 if share >= 0.09995 else 2
    return f"{100 * share:.{digits}f} %"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    r"""Return the lines of an indented table: names to the left, all other columns to the right.

    A column that is empty in all rows is left out; names that do not fit are cut.

    Args:
        header: Of each column; a line break in it makes a second line.
        rows: Cells.

    Example:
        >>> print("\n".join(table(["domain", "held out", "tokens"], [["code", "", "12 M"]])))
          domain  tokens
          code      12 M
    """
    kept = [0, *(i for i in range(1, len(header)) if any(row[i] for row in rows))]
    lines = max(title.count("\n") for title in header) + 1
    titles = [[""] * (lines - 1 - t.count("\n")) + t.split("\n") for t in header]
    cells = [[titles[i][line] for i in kept] for line in range(lines)]
    cells += [[row[i] for i in kept] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(kept))]
    others = sum(width + len(_GAP) for width in widths[1:])
    widths[0] = min(widths[0], max(_LEAST_NAME, COLUMNS - len(_GAP) - others))
    return [
        _GAP
        + _GAP.join(
            [_cut(row[0], widths[0]).ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in cells
    ]


def _cut(name: str, width: int) -> str:
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= width else name[: width - 3] + "..."
