"""What a user can get wrong between the data's settings, the trainer's and a checkpoint's."""

from typing import TYPE_CHECKING, Any, Protocol

from pile_lightning.data.share import Share
from pile_lightning.data.short_rows import ShortRowsConfig
from pile_lightning.data.tokenizer_specs import bpe_vocab_size

if TYPE_CHECKING:
    from lightning import Trainer

__all__ = ["PACKINGS", "check_fingerprint", "check_settings", "check_trainer", "share"]

PACKINGS = ("split", "best_fit")
"""Ways to put documents into rows."""

_LEAST = {
    "seq_len": 1,
    "batch_size": 1,
    "val_batch_size": 1,
    "num_workers": 0,
    "max_record_bytes": 1,
}


class _Settings(Protocol):
    tokenizer_spec: str
    seq_len: int
    batch_size: int
    packing: str
    short_rows: ShortRowsConfig | None
    val_stride: int
    val_fraction: float
    max_bad_fraction: float


def check_settings(settings: _Settings) -> None:
    """Raise ValueError for a setting that is out of its range by itself."""
    bpe_vocab_size(settings.tokenizer_spec)
    for name, least in _LEAST.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"{name}={value} is too small; choose {least} or more")
    if settings.packing not in PACKINGS:
        known = " or ".join(map(repr, PACKINGS))
        raise ValueError(f"packing={settings.packing!r} is no way to fill rows; choose {known}")
    if settings.short_rows is not None:
        if settings.packing != "split":
            raise ValueError(
                f"short_rows cuts rows in parts, and packing={settings.packing!r} keeps documents "
                f"whole; choose packing='split', or null for short_rows"
            )
        settings.short_rows.stage(seq_len=settings.seq_len, batch_size=settings.batch_size)
    if not 1 <= settings.val_stride <= settings.seq_len:
        raise ValueError(
            f"val_stride={settings.val_stride} is not between 1 and seq_len={settings.seq_len}; it "
            f"is how many new positions a validation row has, the others being context"
        )
    if not 0 <= settings.val_fraction < 1:
        raise ValueError(
            f"val_fraction={settings.val_fraction} is no share of the documents to hold out; "
            f"choose it from 0 (none) to below 1, for example 0.05"
        )
    if not 0 <= settings.max_bad_fraction <= 1:
        raise ValueError(
            f"max_bad_fraction={settings.max_bad_fraction} is no share of the records; choose it "
            f"from 0 (stop at the first that cannot be read) to 1 (leave any number out)"
        )


def check_trainer(trainer: "Trainer") -> None:
    """Raise ValueError for settings under which an optimizer step is not ``batch_size`` rows.

    Lightning counts its intervals in batches before accumulation, and steps at the end of one.
    """
    from lightning.pytorch.callbacks import GradientAccumulationScheduler

    if trainer.fast_dev_run:  # one batch, whatever is accumulated
        return
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks):
        raise ValueError(
            "GradientAccumulationScheduler changes how many rows an optimizer step has, and "
            "batch_size fixes them; remove the callback, or train in several runs, each resuming "
            "the last with a batch_size of its own"
        )
    accumulated = trainer.accumulate_grad_batches
    for name in ("val_check_interval", "limit_train_batches"):
        value = getattr(trainer, name)
        if isinstance(value, int) and value % accumulated:
            raise ValueError(
                f"trainer.{name}={value} counts batches before accumulation and is not a multiple "
                f"of trainer.accumulate_grad_batches={accumulated}, so it would cut an optimizer "
                f"step; choose a multiple, for example {-(-value // accumulated) * accumulated}"
            )


def share(trainer: "Trainer | None", name: str, batch_size: int, *, accumulated: bool) -> Share:
    """Return this rank's share of each batch.

    Raises:
        ValueError: For a batch that cannot be shared evenly.
    """
    # of the data-parallel ranks: tensor-parallel peers get the same rows
    ranks = (trainer.distributed_sampler_kwargs if trainer is not None else None) or {}
    num_ranks, rank = ranks.get("num_replicas", 1), ranks.get("rank", 0)
    parts = trainer.accumulate_grad_batches if trainer is not None and accumulated else 1
    if batch_size % (num_ranks * parts):
        sharers = f"{num_ranks} data-parallel ranks"
        if accumulated:
            sharers += f" x accumulate_grad_batches={parts}"
        raise ValueError(
            f"data.{name}={batch_size} rows cannot be shared evenly by {sharers}; it counts the "
            f"rows of all of them together: choose a multiple of {num_ranks * parts}"
        )
    return Share(num_rows=batch_size // (num_ranks * parts), rank=rank, num_ranks=num_ranks)


def check_fingerprint(saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ValueError where a checkpoint's rows are not the rows that this run would read."""
    differing = [
        f"  {name}: {saved.get(name)!r} in the checkpoint, {now.get(name)!r} now"
        for name in saved | now
        if saved.get(name) != now.get(name)
    ]
    if differing:
        raise ValueError(
            "the checkpoint was trained on other rows than this run would read, so it cannot go on "
            "where it stopped:\n" + "\n".join(differing) + "\nset these back and bring the same "
            "files, or start a new run from the weights alone (load_from_checkpoint)"
        )
