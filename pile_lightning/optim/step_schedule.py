"""The schedule of an optimizer, whose settings are those of the config also when a run resumes."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

__all__ = ["StepSchedule"]

_OF_SCHEDULE = ("params", "lr", "initial_lr")


class StepSchedule(LambdaLR):
    """Multiply the rate of each group by a function of the optimizer step.

    A checkpoint holds the rates, betas and decay that it was saved with, and torch restores them:
    what the config says now would be overruled in silence. This schedule, which is restored after
    its optimizer, takes only the step from a checkpoint, and puts back each setting of a group that
    was built with another value than then. What an optimizer itself changes in its groups stays as
    it was saved.

    Args:
        optimizer: As it was built.
        factors: On the rate of each group, by the step; one for all of them, or one a group.

    Example:
        >>> import torch
        >>> def make(lr):
        ...     optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)
        ...     return StepSchedule(optimizer, lambda step: 0.5**step)
        >>> old, new = make(0.1), make(0.2)
        >>> old.optimizer.step(); old.step()
        >>> new.load_state_dict(old.state_dict())
        >>> new.get_last_lr()
        [0.1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factors: Callable[[int], float] | Sequence[Callable[[int], float]],
    ) -> None:
        self.kinds = _kinds(optimizer)
        self.built = [_settings(group) for group in optimizer.param_groups]
        super().__init__(optimizer, factors if callable(factors) else list(factors))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the step of a checkpoint.

        Raises:
            ValueError: For a checkpoint of another kind of optimizer.
        """
        before = list(state_dict.get("kinds", self.kinds))
        if before != self.kinds:
            raise ValueError(
                f"the checkpoint's optimizer is {_listed(before)}, and model.optimizer makes "
                f"{_listed(self.kinds)}, which cannot use its state; resume with the optimizer "
                f"that it was saved by, or start a new run"
            )
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict.get("_step_count", self.last_epoch + 1)
        groups = self.optimizer.param_groups
        for group, old, new in zip(groups, state_dict.get("built", ()), self.built, strict=False):
            group.update({k: v for k, v in new.items() if k not in old or old[k] != v})
        for group, base, factor in zip(groups, self.base_lrs, self.lr_lambdas, strict=True):
            group["initial_lr"], group["lr"] = base, base * factor(self.last_epoch)
        self._last_lr = [group["lr"] for group in groups]


def _kinds(optimizer: Optimizer) -> list[str]:
    """Return for each group the class of the optimizer that steps it."""
    parts = getattr(optimizer, "parts", None)
    each = parts.values() if isinstance(parts, dict) else [optimizer]
    return [type(part).__name__ for part in each for _ in part.param_groups]


def _listed(kinds: Sequence[str]) -> str:
    return ", ".join(kind for kind, _ in groupby(kinds))


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a group that a checkpoint can hold as plain data."""
    plain = (bool, int, float, str, type(None), tuple, list)
    return {
        name: value
        for name, value in group.items()
        if name not in _OF_SCHEDULE and isinstance(value, plain)
    }
