"""An optimizer that says what a step does, and leaves the closure to this."""

from abc import abstractmethod
from collections.abc import Callable
from typing import overload

import torch
from torch.optim import Optimizer

__all__ = ["Stepping"]


class Stepping(Optimizer):
    """Calls the closure with gradients, and ``take_step`` without."""

    @abstractmethod
    def take_step(self) -> None:
        """Step all parameters that have a gradient."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; ``closure`` computes the loss and the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.take_step()
        return loss
