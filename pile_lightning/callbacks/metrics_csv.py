"""A logger whose file survives: one ``metrics.csv`` in the run's folder, continued at a resume."""

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

__all__ = ["MetricsCsv", "MetricsReader", "read_metrics"]


class MetricsCsv(Logger):
    """Append metrics to ``metrics.csv``, a row for each time something is logged.

    Lightning's ``CSVLogger`` deletes the file of the run that it continues. This one keeps every
    row before the step it resumes at and drops those after it, which the resumed run repeats.

    Args:
        save_dir: The run's folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     MetricsCsv(folder).log_metrics({"train/loss": 1.5}, step=9)
        ...     Path(folder, "metrics.csv").read_text().split()
        ['step,train/loss', '10,1.5']
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(save_dir, "metrics.csv")
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """Nothing: the run's folder is the name."""
        return ""

    @property
    def version(self) -> str:
        """Nothing: the run's folder holds one run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Leave them out: the run's folder holds its ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row.

        Args:
            metrics: Values by name.
            step: Lightning's number of the step, counted from 0; the file counts finished steps.
        """
        done = (step or 0) + 1
        values = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        row: dict[str, float] = {"step": done, **values}
        if not self._columns:
            self._write(list(takewhile(partial(_precedes, row=row), read_metrics(self.path))))
        if not set(row) <= set(self._columns):
            rows = read_metrics(self.path)
            self._columns += [name for name in row if name not in self._columns]
            self._write(rows)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)

    def _write(self, rows: list[dict[str, float]]) -> None:
        for row in rows:
            self._columns += [name for name in row if name not in self._columns]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".csv.partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.path)


def _precedes(kept: Mapping[str, float], row: Mapping[str, float]) -> bool:
    """Say whether a row of the run before is not repeated by ``row`` or what follows it."""
    # of the same step if it is of something else: a run may go on with the validation of a step
    # whose training is logged
    return kept["step"] < row["step"] or (
        kept["step"] == row["step"] and kept.keys() & row.keys() == {"step"}
    )


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Return the rows of a ``metrics.csv``, each with the columns that it fills.

    A line that is no row, which a lost disk block or a kill leaves, is passed over.
    """
    return MetricsReader(path).read()


class MetricsReader:
    """Reads a ``metrics.csv`` that grows: what was read once is kept.

    Args:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = -1
        self._read = 0
        self._columns: list[str] = []
        self._rows: list[dict[str, float]] = []

    def read(self) -> list[dict[str, float]]:
        """Return the rows so far, as ``read_metrics`` does."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._file or status.st_size < self._read:  # written over
                self._file, self._read, self._columns, self._rows = status.st_ino, 0, [], []
            file.seek(self._read)
            # a line without an end is one that a kill cut short, perhaps in the middle of a number
            *lines, rest = file.read().split(b"\n")
            self._read = file.tell() - len(rest)
        if lines and not self._columns:
            self._columns = _columns(lines.pop(0))
        self._rows += [row for line in lines if (row := _row(self._columns, line)) is not None]
        return self._rows


def _columns(header: bytes) -> list[str]:
    return next(csv.reader([header.decode("utf-8", "replace")]), [])


def _row(columns: list[str], line: bytes) -> dict[str, float] | None:
    """Return a line's row, or None where it is damaged."""
    cells = line.rstrip(b"\r").split(b",")  # numbers need no quotes
    if len(cells) != len(columns):
        return None
    try:
        row = {name: float(cell) for name, cell in zip(columns, cells, strict=True) if cell}
        return {**row, "step": int(row["step"])}
    except (KeyError, ValueError, OverflowError):
        return None
