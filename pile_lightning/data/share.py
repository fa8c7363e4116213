"""Which rows of a global batch each data-parallel rank takes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Share"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which rows of a global batch one rank takes: ``num_rows``, behind those of lower ranks."""

    num_rows: int
    """Rows of a batch on each rank."""
    rank: int = 0
    """Data-parallel rank of this process."""
    num_ranks: int = 1
    """Data-parallel ranks."""

    def positions(self, batches: Ints) -> Ints:
        """Return the positions in the stream of rows that make up batches (batches, num_rows)."""
        first = (batches * self.num_ranks + self.rank) * self.num_rows
        return first[:, None] + np.arange(self.num_rows)
