"""One optimizer made of several, and one schedule: models that train side by side in one step.

Lightning counts a step, clips, accumulates and saves for each optimizer. Several would need manual
optimization, where each of them advances ``global_step`` and nothing may be accumulated.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from pile_lightning.optim.muon import step_together
from pile_lightning.optim.step_schedule import StepSchedule
from pile_lightning.optim.stepping import Stepping

__all__ = ["JointOptimizer", "joint_schedule", "part_of_optimizer", "part_of_schedule", "put_back"]


class JointOptimizer(Stepping):
    """Step several optimizers at once.

    Its groups are theirs, in their order, and it holds the state of all of them, so that its
    ``state_dict`` is that of one optimizer of all parameters.

    Args:
        parts: The optimizers by name; no parameter belongs to two of them.
        together: Step them by ``step_together``: faster, and equal but for rounding.

    Example:
        >>> import torch
        >>> weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
        >>> rates = {"slow": 0.1, "fast": 0.5}
        >>> parts = {
        ...     name: torch.optim.SGD([weight], lr=lr)
        ...     for (name, lr), weight in zip(rates.items(), weights)
        ... }
        >>> for weight in weights:
        ...     weight.grad = torch.ones(1)
        >>> JointOptimizer(parts).step()
        >>> torch.cat(weights).tolist()
        [0.8999999761581421, 0.5]
    """

    def __init__(self, parts: Mapping[str, Optimizer], *, together: bool = False) -> None:
        self.parts = dict(parts)
        self.together = together
        super().__init__([group for part in parts.values() for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts see the groups and the state of this optimizer as their own."""
        first = 0
        for part in self.parts.values():
            self.state.update(part.state)
            end = first + len(part.param_groups)
            part.param_groups = self.param_groups[first:end]
            part.state = self.state
            first = end

    def __setstate__(self, state: dict[str, Any]) -> None:
        # what a loaded state comes by: groups and state are other objects after it
        super().__setstate__(state)
        for part in self.parts.values():
            part.state = self.state
        self._share()

    def take_step(self) -> None:
        """Step each part."""
        if self.together:
            step_together(self.parts.values())
            return
        for part in self.parts.values():
            part.step()

    def groups_of(self, name: str) -> range:
        """Return which of the groups belong to a part."""
        first = 0
        for other, part in self.parts.items():
            if other == name:
                return range(first, first + len(part.param_groups))
            first += len(part.param_groups)
        raise KeyError(name)


def joint_schedule(
    optimizer: JointOptimizer, factors: Mapping[str, Sequence[Callable[[int], float]]]
) -> StepSchedule:
    """Return a schedule that gives the groups of each part their own factor.

    Args:
        optimizer: The parts together.
        factors: For each part, the factor on the rate of each group by the step.
    """
    for group in optimizer.param_groups:
        # a schedule of a part alone has set the rate of step 0
        group["lr"] = group.pop("initial_lr", group["lr"])
    return StepSchedule(optimizer, [each for name in optimizer.parts for each in factors[name]])


def part_of_optimizer(state: Mapping[str, Any], groups: range) -> dict[str, Any]:
    """Cut the state of one part out of a joint optimizer's ``state_dict``.

    Example:
        >>> state = {"state": {0: {}, 2: {"step": 1}}, "param_groups": [{"params": [0, 1]},
        ...          {"params": [2]}]}
        >>> part_of_optimizer(state, range(1, 2))
        {'state': {0: {'step': 1}}, 'param_groups': [{'params': [0]}]}
    """
    own = [state["param_groups"][group] for group in groups]
    numbers = {old: new for new, old in enumerate(p for group in own for p in group["params"])}
    return {
        "state": {numbers[p]: state["state"][p] for p in numbers if p in state["state"]},
        "param_groups": [
            {**group, "params": [numbers[p] for p in group["params"]]} for group in own
        ],
    }


def put_back(state: Mapping[str, Any], left_out: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Make room in an optimizer's state for parameters that it was kept from, with none of theirs.

    Args:
        state: A ``state_dict``, of parameters counted from 0.
        left_out: For each group, where in it they would be.

    Example:
        >>> state = {"state": {0: {"step": 1}}, "param_groups": [{"params": [0]}, {"params": []}]}
        >>> put_back(state, [[0], [0]])
        {'state': {1: {'step': 1}}, 'param_groups': [{'params': [0, 1]}, {'params': [2]}]}
    """
    numbers: dict[int, int] = {}
    groups, total = [], 0
    for group, places in zip(state["param_groups"], left_out, strict=True):
        count = len(group["params"]) + len(places)
        kept = [total + place for place in range(count) if place not in places]
        numbers |= dict(zip(group["params"], kept, strict=True))
        groups.append({**group, "params": list(range(total, total + count))})
        total += count
    return {
        "state": {numbers[old]: value for old, value in state["state"].items()},
        "param_groups": groups,
    }


def part_of_schedule(state: Mapping[str, Any], groups: range) -> dict[str, Any]:
    """Cut the state of one part out of a joint schedule's ``state_dict``.

    Example:
        >>> part_of_schedule({"last_epoch": 3, "base_lrs": [0.1, 0.2]}, range(1, 2))
        {'last_epoch': 3, 'base_lrs': [0.2]}
    """
    by_group = ("base_lrs", "_last_lr", "lr_lambdas", "built", "kinds")
    return {
        name: value[groups.start : groups.stop] if name in by_group else value
        for name, value in state.items()
    }
