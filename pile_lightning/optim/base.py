"""What an optimizer and a schedule are to the modules: configs that build."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

__all__ = ["OptimizerConfig", "ScheduleConfig"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(ABC):
    """An optimizer's settings; sub-class it to bring your own."""

    @abstractmethod
    def build(self, network: nn.Module) -> Optimizer:
        """Make the optimizer for the parameters of ``network``.

        It sees the network rather than a list of parameters because the choice of algorithm, decay
        and learning rate hangs on what a parameter is.
        """


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(ABC):
    """A learning-rate schedule's settings; sub-class it to bring your own."""

    @abstractmethod
    def build(self, *, total: int) -> Callable[[int], float]:
        """Return the factor on every learning rate as a pure function of the optimizer step.

        Args:
            total: Optimizer steps of the whole run.
        """
