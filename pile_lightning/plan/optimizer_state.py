"""How many bytes an optimizer keeps for each parameter, found by letting it take a step."""

from collections import defaultdict
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, unset_fake_temporarily
from torch.optim import Optimizer

__all__ = ["OptimizerState", "optimizer_state"]

_SIDES = (3, 5, 7, 11, 13)
"""Different sides of a small parameter, by which those of its state are known again."""


@dataclass(frozen=True, kw_only=True)
class OptimizerState:
    """What an optimizer keeps."""

    num_bytes: dict[nn.Parameter, int]
    """Bytes by parameter."""
    tensors: list[Tensor] = field(default_factory=list)
    """The tensors themselves, where they could be made."""


def optimizer_state(optimizer: Optimizer) -> OptimizerState:
    """Let an optimizer of fake parameters take its first step, and weigh what it keeps.

    One that asks for the value of a tensor is given small parameters with values instead, and what
    it keeps for each of their sides is scaled to the real ones.

    Example:
        >>> from torch._subclasses.fake_tensor import FakeTensorMode
        >>> for kind in (torch.optim.AdamW, torch.optim.Adafactor):
        ...     with FakeTensorMode():
        ...         matrix = nn.Parameter(torch.empty(100, 1000))
        ...         print(optimizer_state(kind([matrix])).num_bytes[matrix])
        800004
        4404
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer.step()
    except DataDependentOutputException:
        return OptimizerState(num_bytes=_of_small_ones(optimizer))
    tensors = {parameter: _state_of(optimizer, parameter) for parameter in parameters}
    return OptimizerState(
        num_bytes={p: sum(t.nbytes for t in kept) for p, kept in tensors.items()},
        tensors=[tensor for kept in tensors.values() for tensor in kept],
    )


def _state_of(optimizer: Optimizer, parameter: Tensor) -> list[Tensor]:
    return [v for v in optimizer.state.get(parameter, {}).values() if isinstance(v, Tensor)]


def _of_small_ones(optimizer: Optimizer) -> dict[nn.Parameter, int]:
    """Weigh the state of a copy of the optimizer with small real parameters."""
    with unset_fake_temporarily():
        small: dict[nn.Parameter, nn.Parameter] = {}
        groups: list[dict[str, Any]] = []
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                values = torch.zeros(_SIDES[: parameter.ndim], dtype=parameter.dtype)
                small[parameter] = nn.Parameter(values)
                small[parameter].grad = torch.ones_like(values)
            groups.append({**group, "params": [small[p] for p in group["params"]]})
        copy: Optimizer = object.__new__(type(optimizer))
        copy.__dict__.update(optimizer.__dict__, param_groups=groups, state=defaultdict(dict))
        copy.step()
        return {
            parameter: sum(
                _scaled(kept, parameter) * kept.element_size() for kept in _state_of(copy, stand_in)
            )
            for parameter, stand_in in small.items()
        }


def _scaled(kept: Tensor, parameter: Tensor) -> int:
    sides = dict(zip(_SIDES, parameter.shape, strict=False))
    return prod(sides.get(side, side) for side in kept.shape)
