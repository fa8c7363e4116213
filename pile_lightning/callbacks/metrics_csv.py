"""A logger whose file survives: one ``metrics.csv`` in the run's folder, continued at a resume."""

import csv
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from pile_lightning.whole_file import replace_file

__all__ = ["MetricsCsv", "MetricsReader", "read_metrics"]


class MetricsCsv(Logger):
    """Append metrics to ``metrics.csv``, a row for each time something is logged.

    Lightning's ``CSVLogger`` deletes the file of the run that it continues. This one keeps every
    row before the step it resumes at and drops those after it, which the resumed run repeats.
    Rows that a full disk refuses wait, with a warning, and are written with the next one.

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
        self._waiting: list[dict[str, float]] = []
        self._has_warned = False

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
        self._waiting.append({"step": done, **values})
        self._write_waiting()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Try the rows again that could not be written."""
        if self._waiting:
            self._write_waiting()

    def _write_waiting(self) -> None:
        try:
            self._write()
        except OSError as error:
            if not self._has_warned:
                rank_zero_warn(
                    f"{self.path} was not written: {error.strerror or error}. Its rows wait in "
                    f"memory, training goes on, and the next row tries again."
                )
            self._has_warned = True
        else:
            self._waiting.clear()
            self._has_warned = False

    def _write(self) -> None:
        """Write the rows that wait, all or none of them."""
        names = {name: None for row in self._waiting for name in row}
        if not self._columns:  # of a run before, what is not repeated stays
            first = partial(_precedes, row=self._waiting[0])
            self._write_all(list(takewhile(first, read_metrics(self.path))), names)
        elif not names.keys() <= set(self._columns):
            self._write_all(read_metrics(self.path), names)
        else:
            size = self.path.stat().st_size
            try:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    self._writer(file, self._columns).writerows(self._waiting)
            except OSError:
                os.truncate(self.path, size)
                raise

    def _write_all(self, rows: list[dict[str, float]], names: Iterable[str]) -> None:
        """Write the file again, with further columns and the rows that wait."""
        known = dict.fromkeys([*self._columns, *(name for row in rows for name in row), *names])
        with replace_file(self.path, "w") as file:
            writer = self._writer(file, list(known))
            writer.writeheader()
            writer.writerows([*rows, *self._waiting])
        self._columns = list(known)

    @staticmethod
    def _writer(file: IO[str], columns: Sequence[str]) -> "csv.DictWriter[str]":
        return csv.DictWriter(file, columns, lineterminator="\n")


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
