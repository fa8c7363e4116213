"""How many rows of each domain a shuffled whole has given so far.

A mixture says that by a division. A shuffle has to be counted, some 0.2 us a row, so the count goes
on from the last one: what validation asks for costs the rows since the one before.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pile_lightning.data.packing import TrainingRows

__all__ = ["RowCounter"]

Ints = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 1 << 16


class RowCounter:
    """Counts the rows of each domain in an order.

    Args:
        rows: The rows of an epoch; every epoch has each of them once.
        order: Row at each position of the stream.
    """

    def __init__(self, *, rows: TrainingRows, order: Callable[[Ints], Ints]) -> None:
        self.rows, self.order = rows, order
        self._position = 0
        self._counts = np.zeros_like(rows.rows_by_domain)

    def counts(self, num_rows: int) -> Ints:
        """Return how many of the first ``num_rows`` rows each domain has (domains,)."""
        epochs = num_rows // self.rows.num_rows
        begun = epochs * self.rows.num_rows
        if not begun <= self._position <= num_rows:
            self._position, self._counts = begun, epochs * self.rows.rows_by_domain
        while self._position < num_rows:
            end = min(num_rows, self._position + _ROWS_AT_ONCE)
            domain = self.rows.domain_of(self.order(np.arange(self._position, end)))
            self._counts = self._counts + np.bincount(domain, minlength=len(self._counts))
            self._position = end
        return self._counts.copy()
