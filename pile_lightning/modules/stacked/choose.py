"""Whether members are faster as one or one after another: it is tried on a batch, for a second.

Stacked, a step has a member's number of operations, each as large as all members; one after
another, each operation is small and what it reads is still in the caches. Which of the two wins
hangs on sizes, threads and device.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pile_lightning.batch import TokenBatch
from pile_lightning.modules.base import LanguageModule
from pile_lightning.modules.stacked.alike import why_not_stack
from pile_lightning.modules.stacked.stack import Stack

__all__ = ["StackChoice", "choose_stack"]

_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 50


@dataclass(frozen=True, kw_only=True)
class StackChoice:
    """How members are to be computed."""

    stack: Stack[LanguageModule] | None
    """What computes them as one; None where they are computed one after another."""
    reason: str
    """Why, in a sentence for the user."""


def choose_stack(
    members: Sequence[LanguageModule],
    batch: TokenBatch,
    *,
    compile: bool = False,
    seconds: float = 1.0,
    tolerance: float = 1e-3,
) -> StackChoice:
    """Stack ``members`` if they can be, come to the same losses so, and are faster so.

    Call it before the first step, in the precision of training: it computes losses and gradients,
    and leaves neither gradients nor a trace in the random numbers.

    Args:
        members: Built, on their device.
        batch: Of the size that is trained on.
        compile: Compile the blocks of the stack.
        seconds: How long to measure, after one step of each to warm up.
        tolerance: By how much of itself a loss may differ; dropout is left out of it.
    """
    problem = why_not_stack(members)
    if problem is not None:
        return StackChoice(stack=None, reason=f"one after another: {problem}")
    stack = Stack(members, compile=compile)
    ways: dict[str, Callable[[], Tensor]] = {
        "as one": lambda: stack(lambda member: member.loss_sum(batch)),
        "one after another": lambda: torch.stack([m.loss_sum(batch) for m in members]),
    }
    devices = [members[0].device] if members[0].device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        reason = _compare(members, ways, seconds=seconds, tolerance=tolerance)
    if not reason.startswith("as one"):
        stack.release()
        return StackChoice(stack=None, reason=reason)
    return StackChoice(stack=stack, reason=reason)


def _compare(
    members: Sequence[LanguageModule],
    ways: dict[str, Callable[[], Tensor]],
    *,
    seconds: float,
    tolerance: float,
) -> str:
    """Return the faster way, and why."""
    try:
        losses = [_step(members, way)[1] for way in ways.values()]
    except Exception as error:  # a user's own network may raise anything
        told = (str(error).splitlines() or [type(error).__name__])[0]
        return f"one after another: torch.vmap cannot take these networks ({told})"
    if not _drops(members):
        off = ((losses[0] - losses[1]).abs() / losses[1].abs().clamp(min=1e-30)).max().item()
        if not off <= tolerance:
            return (
                f"one after another: as one, a loss is {off:.1e} of itself off, so that these "
                f"networks do something that torch.vmap computes otherwise"
            )
    took: dict[str, list[float]] = {name: [] for name in ways}
    begun = time.perf_counter()
    for number in range(_MOST_ROUNDS):
        if number >= _FEWEST_ROUNDS and time.perf_counter() - begun > seconds:
            break
        for name, way in ways.items():  # in turn: the machine drifts
            took[name].append(_step(members, way)[0])
    fast, slow = sorted(took, key=lambda name: statistics.median(took[name]))
    ms, more = (1000 * statistics.median(took[name]) for name in (fast, slow))
    return f"{fast}: a step of {len(members)} members takes {ms:.3g} ms, and {more:.3g} {slow}"


def _step(members: Sequence[LanguageModule], way: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Compute losses and gradients; return the seconds, and the losses."""
    _wait(members)
    begun = time.perf_counter()
    losses = way()
    torch.autograd.backward(losses.sum())
    _wait(members)
    taken = time.perf_counter() - begun
    for member in members:
        member.zero_grad()
    return taken, losses.detach()


def _wait(members: Sequence[LanguageModule]) -> None:
    if members[0].device.type == "cuda":
        torch.cuda.synchronize(members[0].device)


def _drops(members: Sequence[LanguageModule]) -> bool:
    """Say whether a member draws numbers as it computes."""
    return any(
        isinstance(part, torch.nn.Dropout) and part.p > 0 and part.training
        for part in members[0].modules()
    )
