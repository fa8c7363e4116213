"""One progress bar over parts that several processes make, in bytes as the sources count them."""

import time
from collections.abc import Sequence
from typing import NoReturn

from tqdm import tqdm

from pile_lightning.data.workers import Report

__all__ = ["Progress", "make_bar"]

_DELAY = 1.0


def make_bar(doing: str, total: int | None, quiet: bool) -> "tqdm[NoReturn]":
    """Return a bar that shows on a terminal only, and not for what takes a moment."""
    return tqdm(
        desc=doing,
        total=total,
        unit="B",
        unit_scale=True,
        delay=_DELAY,
        disable=True if quiet else None,
    )


class Progress:
    """How far all jobs together are.

    Sources know how many bytes there are to read, jobs how many bytes of text they read: of a
    compressed file that is more, of JSON less. What finished jobs tell about the two is used for
    those that go on.

    Args:
        sizes: Bytes that each job has to read, where they are known.
        quiet: Whether to show nothing.
    """

    def __init__(self, sizes: Sequence[int | None], *, quiet: bool) -> None:
        self.sizes = sizes
        known = [size for size in sizes if size is not None]
        self.total = sum(known) if len(known) == len(sizes) else None
        self.done = Report(0, 0, 0)
        """What finished jobs read and wrote."""
        self._working: dict[int, Report] = {}
        self._began = time.monotonic()
        self._bar = make_bar("tokenizing", self.total, quiet)

    @property
    def stored(self) -> int:
        """Bytes written."""
        return self.done.stored + sum(report.stored for report in self._working.values())

    @property
    def position(self) -> int:
        """Bytes read, as the sources count them."""
        return self.done.raw_bytes + sum(map(self._position, self._working))

    def report(self, number: int, report: Report | None) -> None:
        """Take in how far a job is; None shows the time go on."""
        if report is not None:
            self._working[number] = report
        self._show()
        if report is None and time.monotonic() - self._began > _DELAY:
            self._bar.refresh()

    def finish(self, number: int) -> None:
        """Take in that a job has ended."""
        report = self._working.pop(number, Report(0, 0, 0))
        size = self.sizes[number]
        raw = report.num_bytes if size is None else size
        self.done = Report(
            self.done.num_bytes + report.num_bytes,
            self.done.raw_bytes + raw,
            self.done.stored + report.stored,
        )
        self._show()

    def close(self) -> None:
        """Take the bar away, or leave it as it is."""
        self._bar.close()

    def needed(self) -> int | None:
        """Return about how many bytes the unfinished jobs write, or None where nobody knows."""
        if self.total is None or not self.position:
            return None
        return int(self.stored / self.position * (self.total - self.done.raw_bytes))

    def _position(self, number: int) -> int:
        report, size = self._working[number], self.sizes[number]
        if size is None:
            return report.num_bytes
        ratio = self.done.raw_bytes / self.done.num_bytes if self.done.num_bytes else 1.0
        return min(size, max(report.raw_bytes, int(report.num_bytes * ratio)))

    def _show(self) -> None:
        # never back: an estimate may have been too high
        self._bar.update(max(0, self.position - self._bar.n))
