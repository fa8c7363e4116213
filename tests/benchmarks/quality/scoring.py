"""Held-out bits per byte of anything that gives logits, on the rows that ``train.py`` scores."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pile_lightning import TextData
from pile_lightning.batch import TokenBatch
from pile_lightning.metrics import BitsPerByte
from pile_lightning.nn import cross_entropy_sum
from tests.benchmarks.quality.trained import Scored

__all__ = ["bits_per_byte", "held_out", "score"]

Logits = Callable[[TokenBatch], Tensor]


def held_out(
    data: TextData, *, context: int, max_batches: int | None = None
) -> Iterator[TokenBatch]:
    """Give every held-out token once, in batches of eight rows of ``context`` positions.

    Where a row goes on within a document, its first half is context: the stride of
    ``configs/quickstart.yaml``. A row may begin before the end of a document; whoever knows no
    documents sees the ones before, as in training.
    """
    rows = TextData(
        list(data.sources),
        tokenizer=data.tokenizer_spec,
        val_fraction=data.val_fraction,
        cache_dir=str(data.cache_dir),
        seq_len=context,
        val_stride=max(1, context // 2),
    )
    batches = rows.val_dataloader()
    total = len(batches) if max_batches is None else min(max_batches, len(batches))
    for _, batch in zip(
        tqdm(range(total), "scoring", leave=False, disable=None), batches, strict=False
    ):
        yield batch


@torch.inference_mode()
def bits_per_byte(
    logits: Logits, data: TextData, *, context: int, max_batches: int | None = None
) -> float:
    """Score every held-out token once, in float32, in rows of the context that was trained on.

    Args:
        logits: From a batch's ids, and what else of it is wanted, to (batch, seq, vocab).
        data: Whose held-out text is scored, once prepared.
        context: Positions of a row.
        max_batches: Score so many batches of eight rows; all by default.
    """
    found = BitsPerByte()
    for batch in held_out(data, context=context, max_batches=max_batches):
        nats = cross_entropy_sum(logits(batch), batch["labels"], reduction="none").sum(dim=1)
        found.update(nats, batch["num_bytes"])
    return float(found.compute())


def score(
    network: nn.Module,
    logits: Logits,
    data: TextData,
    *,
    context: int,
    max_batches: int | None = None,
) -> Scored:
    """Score ``network``, whose ``logits`` are given, and count its parameters."""
    tables = {each.weight for each in network.modules() if isinstance(each, nn.Embedding)}
    return Scored(
        bits_per_byte=bits_per_byte(logits, data, context=context, max_batches=max_batches),
        parameters=sum(each.numel() for each in network.parameters()),
        looked_up=sum(each.numel() for each in tables),
    )
