"""From tokens side by side to the batches that modules consume.

What the tokens alone do not say is told beside them: what is padding, what is context, and where a
row goes on with the middle of another document.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pile_lightning.batch import IGNORE_INDEX, TokenBatch

__all__ = ["assemble"]

Ints = npt.NDArray[np.int64]


def assemble(
    tokens: npt.NDArray[Any],
    *,
    domain: Ints,
    length: Ints,
    start_id: int,
    context: Ints | None = None,
    joints: tuple[Ints, Ints] | None = None,
    token_num_bytes: Ints | None = None,
    num_bytes: Ints | None = None,
) -> TokenBatch:
    """Make a batch of rows of tokens and the one behind each (batch, seq + 1).

    Args:
        tokens: What the rows show; whatever stands behind their length is padding.
        domain: Of each row (batch,).
        length: Positions of each row that are no padding (batch,).
        start_id: The token that opens a document.
        context: Positions at the start of each row that predict nothing (batch,).
        joints: Rows and positions (above 0) at which another document, or another part of one,
            begins, whether its token says so or not: the position before predicts an end.
        token_num_bytes: UTF-8 bytes behind each token id, to count those of the predicted tokens.
        num_bytes: Those of each row (batch,), where the ids do not tell.
    """
    input_ids, labels = tokens[:, :-1].astype(np.int64), tokens[:, 1:].astype(np.int64)
    opens = tokens[:, :-1] == start_id
    if joints is not None:
        row, place = joints
        opens[row, place] = True
        labels[row, place - 1] = start_id
    sizes = None if token_num_bytes is None else token_num_bytes.take(labels)
    # by row: few hold padding or context, and a mask would be made for all
    for number, end in _where(length < labels.shape[1], length):
        input_ids[number, end:] = start_id
        opens[number, end:] = False
        opens[number, end] = True
        _ignore(labels, sizes, number, slice(end, None))
    if context is not None:
        for number, first in _where(context > 0, context):
            _ignore(labels, sizes, number, slice(first))
    if sizes is not None:
        num_bytes = sizes.sum(axis=1)
    assert num_bytes is not None
    document_ids, position_ids = _documents(opens)
    return TokenBatch(
        input_ids=torch.from_numpy(input_ids),
        labels=torch.from_numpy(labels),
        position_ids=torch.from_numpy(position_ids),
        document_ids=torch.from_numpy(document_ids),
        domain=torch.from_numpy(domain),
        num_bytes=torch.from_numpy(num_bytes),
    )


def _where(condition: npt.NDArray[np.bool_], values: Ints) -> Iterator[tuple[int, int]]:
    rows = np.flatnonzero(condition)
    return zip(rows.tolist(), values[rows].tolist(), strict=True)


def _ignore(labels: Ints, sizes: Ints | None, row: int, positions: slice) -> None:
    labels[row, positions] = IGNORE_INDEX
    if sizes is not None:
        sizes[row, positions] = 0


def _documents(opens: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Return document and position ids (batch, seq), given where documents open."""
    seq = opens.shape[1]
    opens[:, 0] = True  # the first document is number 0, whether it opens here or went on
    # by document, not by position: sums over positions took four times as long
    first = np.flatnonzero(opens)
    length = np.diff(first, append=opens.size)
    number = np.arange(len(first)) - np.searchsorted(first, first // seq * seq)
    position = np.arange(opens.size) - np.repeat(first, length)
    return np.repeat(number, length).reshape(opens.shape), position.reshape(opens.shape)
