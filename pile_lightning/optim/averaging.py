"""An average of the weights over the steps, kept where the optimizer keeps its moments.

In the optimizer's state it is saved, spread over ranks, resumed and moved to devices as the moments
are, by every strategy and kind of checkpoint, and nothing else has to know of it.
"""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pile_lightning.optim.sharded import local

__all__ = ["AVERAGE", "averages", "ema_decay", "exchange", "forget", "update_average"]

AVERAGE = "average"
"""Name of the average in the state of a parameter."""


def ema_decay(step: int, *, decay: float) -> float:
    """Return what the average keeps of itself at optimizer step ``step``, counted from 1.

    It grows to ``decay``: an average of constant decay over the first steps would be of the
    untrained weights for the most part. The average of step n spans about the last n / 9 steps.

    Example:
        >>> ema_decay(8, decay=0.999), ema_decay(100_000, decay=0.999)
        (0.5, 0.999)
    """
    return min(decay, (1 + step) / (10 + step))


def averages(optimizer: Optimizer) -> dict[nn.Parameter, Tensor]:
    """Return the average of each parameter that has one, in the order of the groups."""
    return {
        parameter: optimizer.state[parameter][AVERAGE]
        for group in optimizer.param_groups
        for parameter in group["params"]
        if AVERAGE in optimizer.state.get(parameter, {})
    }


@torch.no_grad()
def update_average(optimizer: Optimizer, *, decay: float) -> None:
    """Move each average to ``decay * average + (1 - decay) * weight``; the first is the weight.

    Call it after the step. A parameter that was never stepped has no average.

    Example:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> optimizer = torch.optim.SGD([weight], lr=1.0)
        >>> weight.grad = torch.tensor([-1.0])
        >>> for _ in range(2):  # to 1, and to 2
        ...     optimizer.step()
        ...     update_average(optimizer, decay=0.75)
        >>> averages(optimizer)[weight]
        tensor([1.2500])
    """
    known = averages(optimizer)
    if known:
        torch._foreach_lerp_(
            [local(average) for average in known.values()],
            [local(parameter) for parameter in known],
            1 - decay,
        )
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # an optimizer fills a state that is empty at its own first step, and only then
            stepped = bool(optimizer.state.get(parameter)) or parameter.grad is not None
            if stepped and parameter not in known:
                optimizer.state[parameter][AVERAGE] = parameter.detach().clone()


@torch.no_grad()
def exchange(optimizer: Optimizer) -> None:
    """Put the averages in the place of the weights and the weights in theirs, in their memory."""
    for parameter, average in averages(optimizer).items():
        weight, other = local(parameter), local(average)
        held = weight.clone()
        weight.copy_(other)
        other.copy_(held)


def forget(optimizer: Optimizer) -> None:
    """Drop the averages."""
    for parameter in averages(optimizer):
        del optimizer.state[parameter][AVERAGE]
