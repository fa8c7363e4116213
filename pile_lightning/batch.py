"""The typed batches that data produces and modules consume: the one contract both sides share."""

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from torch import Tensor

__all__ = ["IGNORE_INDEX", "TokenBatch", "check_batch", "without_needless_mask"]

IGNORE_INDEX = -100
"""Label of a position that predicts nothing: it adds neither to the loss nor to any count."""


class TokenBatch(TypedDict):
    """Rows of text, all of one length. Only ``input_ids`` and ``labels`` are required.

    ``labels`` are already shifted: ``labels[:, t]`` is what a causal model predicts at ``t``. Of a
    row ``ids`` of one token more, that is ``{"input_ids": ids[:-1], "labels": ids[1:]}``.
    """

    input_ids: Tensor
    """Token ids (batch, seq), int64."""
    labels: Tensor
    """The next token at each position (batch, seq), int64; ``IGNORE_INDEX`` where there is none."""
    position_ids: NotRequired[Tensor | None]
    """Distance from the start of the document, or of the row (batch, seq), int64; by default, and
    for None, from the start of the row."""
    document_ids: NotRequired[Tensor | None]
    """Which document of the row a position belongs to (batch, seq), int64, counted from 0: it
    attends to nothing of another. By default, and for None, a row is one document."""
    domain: NotRequired[Tensor]
    """Index of the row's domain among the data module's ``domains`` (batch,), int64; 0 by
    default."""
    num_bytes: NotRequired[Tensor]
    """UTF-8 bytes of the text of the row's labels (batch,), int64; without it there is no score in
    bits per byte."""


def check_batch(batch: object, *, look_inside: bool = False) -> None:
    """Raise unless ``batch`` is a :class:`TokenBatch`.

    Args:
        batch: What a data loader yielded.
        look_inside: Also compare the labels with the inputs, for which the host waits.

    Raises:
        TypeError: For a batch that is no dictionary.
        ValueError: For missing or unequal parts, and labels that are not shifted.

    Example:
        >>> import torch
        >>> ids = torch.tensor([[1, 2, 3, 4]])
        >>> check_batch({"input_ids": ids[:, :-1], "labels": ids[:, 1:]}, look_inside=True)
    """
    if not isinstance(batch, Mapping):
        raise TypeError(f"a batch is a {type(batch).__name__}; {_REMEDY}")
    missing = [name for name in ("input_ids", "labels") if name not in batch]
    if missing:
        held = ", ".join(map(str, batch)) or "nothing"
        raise ValueError(f"a batch has no {' and no '.join(missing)}, only {held}; {_REMEDY}")
    ids, labels = batch["input_ids"], batch["labels"]
    if ids.ndim != 2 or ids.shape != labels.shape:
        shapes = f"input_ids {tuple(ids.shape)} and labels {tuple(labels.shape)}"
        raise ValueError(f"a batch has {shapes}, and both are (batch, seq); {_REMEDY}")
    if not look_inside:
        return
    known = labels != IGNORE_INDEX
    same = bool((ids == labels)[known].all()) and bool(known.any())
    # one token repeated throughout is the same shifted and unshifted
    if same and bool((ids[known] != ids[known][0]).any()):
        raise ValueError(
            f"the labels of a batch are its input_ids, not shifted: a model would learn to copy. "
            f"Labels are shifted by the data here, unlike in Hugging Face's models; {_REMEDY}"
        )


_REMEDY = (
    "let the data yield dictionaries with input_ids and labels, of a row ids of one token more: "
    '{"input_ids": ids[:-1], "labels": ids[1:]} (see pile_lightning.batch.TokenBatch)'
)


def without_needless_mask(batch: TokenBatch) -> TokenBatch:
    """Say by None that no row holds more than one document: attention is faster without a mask.

    To be called before the batch is on its device, which looking at it would wait for.

    Example:
        >>> import torch
        >>> batch = {"document_ids": torch.zeros(1, 2), "position_ids": torch.arange(2)[None]}
        >>> without_needless_mask(batch)
        {'document_ids': None, 'position_ids': None}
    """
    documents = batch.get("document_ids")
    if documents is None or documents.any():
        return batch
    return {**batch, "document_ids": None, "position_ids": None}
