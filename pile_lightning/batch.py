"""The typed batches that data produces and modules consume: the one contract both sides share."""

from typing import TypedDict

from torch import Tensor

__all__ = ["IGNORE_INDEX", "TokenBatch", "without_needless_mask"]

IGNORE_INDEX = -100
"""Label of a position that predicts nothing: it adds neither to the loss nor to any count."""


class TokenBatch(TypedDict):
    """Rows of packed text, all of one length.

    A row is a window of a stream of documents, each of which opens with the document-start token.
    ``labels`` are already shifted: ``labels[:, t]`` is what a causal model predicts at ``t``.
    """

    input_ids: Tensor
    """Token ids (batch, seq), int64."""
    labels: Tensor
    """The next token at each position (batch, seq), int64; ``IGNORE_INDEX`` where there is none."""
    position_ids: Tensor | None
    """Distance from the start of the document, or of the row (batch, seq), int64; None counts from
    the start of the row."""
    document_ids: Tensor | None
    """Which document of the row a position belongs to (batch, seq), int64, counted from 0; None
    where no row holds more than one."""
    domain: Tensor
    """Index of the row's domain among the data module's ``domains`` (batch,), int64."""
    num_bytes: Tensor
    """UTF-8 bytes behind the row's predicted tokens (batch,), int64."""


def without_needless_mask(batch: TokenBatch) -> TokenBatch:
    """Say by None that no row holds more than one document: attention is faster without a mask.

    To be called before the batch is on its device, which looking at it would wait for.

    Example:
        >>> import torch
        >>> batch = {"document_ids": torch.zeros(1, 2), "position_ids": torch.arange(2)[None]}
        >>> without_needless_mask(batch)
        {'document_ids': None, 'position_ids': None}
    """
    documents = batch["document_ids"]
    if documents is None or documents.any():
        return batch
    return {**batch, "document_ids": None, "position_ids": None}
