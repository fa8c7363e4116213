"""The scores of a language model on held-out text."""

from typing import Any

from lightning import Trainer

from pile_lightning.metrics import BitsPerByte, Perplexity
from pile_lightning.parallel import num_step_ranks

__all__ = ["open_scores"]


def open_scores(trainer: Trainer, *, num_domains: int = 1) -> tuple[BitsPerByte, Perplexity]:
    """Return scores that sum over the ranks that share the rows.

    Args:
        trainer: Says which these are.
        num_domains: Of the rows.
    """
    alone = num_step_ranks(trainer) == 1
    how: dict[str, Any] = {"distributed_available_fn": _never} if alone else {}
    return BitsPerByte(num_domains=num_domains, **how), Perplexity(num_domains=num_domains, **how)


def _never() -> bool:
    return False
