"""What went wrong with members on any rank, agreed on by all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from lightning import Trainer

__all__ = ["agree", "gathered", "words"]


def words(error: Exception) -> str:
    r"""Return an error in a line.

    Example:
        >>> words(ValueError("too wide\nby 3"))
        'ValueError: too wide'
    """
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:200]}"


def gathered(reasons: dict[str, str], failed: bool) -> dict[str, str]:
    """Return the reasons of all ranks; they have agreed that there are some."""
    if not (failed and dist.is_available() and dist.is_initialized()):
        return reasons
    of_ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_ranks, reasons)
    return {name: reason for each in reversed(of_ranks) for name, reason in each.items()}


def agree(
    errors: Mapping[str, Exception], names: Sequence[str], trainer: Trainer
) -> dict[str, str]:
    """Return by name what went wrong on any rank; to be called on all of them.

    Args:
        errors: Of this rank.
        names: Of those that may have failed, the same on all ranks.
        trainer: The trainer.
    """
    failed = bool(errors)
    if trainer.world_size > 1:
        failed = bool(trainer.strategy.reduce_boolean_decision(failed, all=False))
    reasons = gathered({name: words(error) for name, error in errors.items()}, failed)
    return {name: reasons[name] for name in names if name in reasons}
