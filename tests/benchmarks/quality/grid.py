"""A grid of learning rates and batches for each system, grown where its best is at the edge."""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from tests.benchmarks.quality.entrants import Entrant
from tests.benchmarks.quality.processes import RunFailedError, end_with_children
from tests.benchmarks.quality.runs import Found, Runs

__all__ = ["Cell", "Grid"]


class Cell(NamedTuple):
    """One run."""

    entrant: Entrant
    rate: float
    batch_size: int


class Grid:
    """Which runs make the table.

    Args:
        runs: Where they are kept and run.
        entrants: The rows.
        batch_sizes: Rows of a batch, for each of the rates.
        tokens: That each run takes.
        grow: How often a grid may grow.
    """

    def __init__(
        self,
        runs: Runs,
        entrants: Sequence[Entrant],
        *,
        batch_sizes: Sequence[int],
        tokens: int,
        grow: int,
    ) -> None:
        self.runs, self.entrants, self.batch_sizes = runs, entrants, batch_sizes
        self.tokens, self.grow = tokens, grow
        self.failed: set[tuple[str, float, int]] = set()

    def find(self, cell: Cell) -> Found | None:
        """Return what a run reached, or None where it was not run or failed."""
        candidate = cell.entrant.make(cell.rate, cell.batch_size)
        return self.runs.records.find(self.runs.key(candidate, steps=self._steps(cell)))

    def run(self, cell: Cell) -> None:
        """Run a cell, keep what it reached and print a line."""
        candidate, steps = cell.entrant.make(cell.rate, cell.batch_size), self._steps(cell)
        name = f"{cell.entrant.name}, rate {cell.rate:g}, batch {cell.batch_size}"
        try:
            found = self.runs.run(candidate, steps)
        except RunFailedError as failure:
            self.failed.add(self._name(cell))
            print(f"{name}: failed\n{failure}", flush=True)
            return
        self.runs.records.add(self.runs.key(candidate, steps=steps), **found)
        print(
            f"{time.strftime('%H:%M:%S')} {name}: {found['bits_per_byte']:.4f} bits per byte "
            f"after {steps} steps, {found['seconds']:.0f} s",
            flush=True,
        )

    def run_all(self, *, at_once: int) -> None:
        """Run what is missing, so many side by side, until no grid grows."""
        while missing := self.missing():
            print(f"{len(missing)} runs to do", flush=True)
            pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,))
            try:
                with end_with_children():
                    list(pool.map(self.run, missing))
            finally:
                pool.shutdown(cancel_futures=True)

    def missing(self) -> list[Cell]:
        """Return what is yet to be run: of all rows the middle of the grid first."""
        found = []
        for entrant in self.entrants:
            rates = self.rates(entrant)
            middle = (len(rates) - 1) / 2
            for place, rate in enumerate(rates):
                for batch_size in self.batch_sizes:
                    cell = Cell(entrant, rate, batch_size)
                    if not self.known(cell):
                        found.append((abs(place - middle), cell))
        return [cell for _, cell in sorted(found, key=lambda each: each[0])]

    def known(self, cell: Cell) -> bool:
        """Return whether a cell was run, or failed."""
        return self._name(cell) in self.failed or self.find(cell) is not None

    def bits(self, cell: Cell) -> float:
        """Return the score of a cell: infinite where there is none."""
        found = self.find(cell)
        bits = math.inf if found is None else found["bits_per_byte"]
        return bits if math.isfinite(bits) else math.inf

    def rates(self, entrant: Entrant) -> list[float]:
        """Return the grid of a row, grown as far as what was found asks for."""
        rates = sorted(entrant.rates)
        for _ in range(self.grow if len(rates) > 1 else 0):
            best = self.best(entrant, rates)
            if best is None or rates[0] < best.rate < rates[-1]:
                break
            if best.rate == rates[0]:
                rates.insert(0, _round(rates[0] ** 2 / rates[1]))
            else:
                rates.append(_round(rates[-1] ** 2 / rates[-2]))
        return rates

    def best(self, entrant: Entrant, rates: Sequence[float]) -> Cell | None:
        """Return the best of these rates, or None unless all of them are known."""
        cells = [Cell(entrant, rate, size) for rate in rates for size in self.batch_sizes]
        if not all(map(self.known, cells)):
            return None
        best = min(cells, key=self.bits)
        return best if math.isfinite(self.bits(best)) else None

    def _steps(self, cell: Cell) -> int:
        own = cell.entrant.make(cell.rate, cell.batch_size).tokens_a_step
        return max(1, round(self.tokens / own))

    @staticmethod
    def _name(cell: Cell) -> tuple[str, float, int]:
        return cell.entrant.name, cell.rate, cell.batch_size


def _round(rate: float) -> float:
    """Return ``rate`` as one would write it, so that it is found again."""
    return float(f"{rate:.3g}")
