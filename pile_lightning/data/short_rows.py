"""Short rows first: a stage at the start of training in which rows are cut into shorter ones.

A batch then has k times as many rows of a k-th the length, and the same tokens. Neither the order
of rows nor their count changes, so a checkpoint knows nothing of it.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pile_lightning.data.packing import SplitRows
from pile_lightning.data.share import Share

__all__ = ["ShortRows", "ShortRowsConfig", "ShortStage"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ShortRowsConfig:
    """Into how many parts rows are cut, and for how long.

    Attention costs less in short rows, and a model learns first what is near. Source: Li et al.,
    The Stability-Efficiency Dilemma: Investigating Sequence Length Warmup, 2022.

    Raises:
        ValueError: For a number out of its range.

    Example:
        >>> ShortRowsConfig(parts=4, until_tokens=1e6).stage(seq_len=256, batch_size=8)
        ShortStage(num_parts=4, end_row=3907, batch_size=8)
    """

    parts: int
    """Short rows that a whole one is cut into; the data's ``seq_len`` is a multiple of it."""
    until_tokens: float
    """Tokens of training after which rows are whole, such as 1e9; rounded up to a whole row. The
    optimizer step in which they are reached is the last one with short rows."""

    def __post_init__(self) -> None:
        if self.parts < 2:
            raise ValueError(
                f"short_rows.parts={self.parts} cuts nothing; choose 2 or more, or null "
                f"for short_rows"
            )
        if not 0 < self.until_tokens < math.inf:
            raise ValueError(
                f"short_rows.until_tokens={self.until_tokens} ends no stage; choose a number of "
                f"tokens above 0, or null for short_rows"
            )

    def stage(self, *, seq_len: int, batch_size: int) -> "ShortStage":
        """Return the stage for rows of ``seq_len``, of which a step has ``batch_size``.

        Raises:
            ValueError: Where short rows do not divide whole ones.
        """
        if seq_len % self.parts:
            raise ValueError(
                f"short_rows.parts={self.parts} does not cut rows of seq_len={seq_len} into equal "
                f"parts; choose a divisor of {seq_len}, or null for short_rows"
            )
        end_row = math.ceil(self.until_tokens / seq_len)
        return ShortStage(num_parts=self.parts, end_row=end_row, batch_size=batch_size)


@dataclass(frozen=True, kw_only=True)
class ShortStage:
    """Which batches are of short rows."""

    num_parts: int = 1
    """Short rows of a whole one."""
    end_row: int = 0
    """Optimizer steps that begin before this row of the stream have short rows."""
    batch_size: int = 1
    """Rows of an optimizer step."""

    def is_short(self, batches: Ints, *, start: int, share: Share) -> npt.NDArray[np.bool_]:
        """Return whether batches have short rows (batches,); none does after one that has not.

        Args:
            batches: Their numbers, from 0 at ``start``; one or several make an optimizer step.
            start: Row of the stream that batch 0 and an optimizer step begin with.
            share: How many rows a batch has.
        """
        rows = batches * share.num_rows * share.num_ranks
        step_starts = start + rows // self.batch_size * self.batch_size
        return np.asarray(step_starts < self.end_row)


@dataclass(frozen=True, kw_only=True)
class ShortRows(SplitRows):
    """The rows of ``whole``, each cut into as many of ``seq_len`` as it holds, in order."""

    whole: SplitRows
    """Rows of a multiple of ``seq_len``."""

    @cached_property
    def rows_by_domain(self) -> Ints:
        """Number of rows of each domain (domains,)."""
        return self.whole.rows_by_domain * self._num_parts

    @property
    def _num_parts(self) -> int:
        return self.whole.seq_len // self.seq_len

    def parts_of(self, rows: Ints) -> Ints:
        """Return the rows into which whole ones (batches, rows) are cut (batches, parts)."""
        parts = rows[..., None] * self._num_parts + np.arange(self._num_parts)
        return parts.reshape(len(rows), rows.shape[1] * self._num_parts)
