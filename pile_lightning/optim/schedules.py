"""Learning-rate schedules: pure functions of the optimizer step, and the configs that name them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pile_lightning.optim.base import ScheduleConfig

__all__ = [
    "CosineConfig",
    "LinearConfig",
    "WarmupStableDecayConfig",
    "cosine",
    "linear",
    "warmup_stable_decay",
]


def _warm(step: int, warmup: int) -> float:
    # the first step already moves: a factor of 0 would waste its batch
    return min(1.0, (step + 1) / (warmup + 1))


def _progress(step: int, start: int, total: int) -> float:
    return min(1.0, max(0.0, (step - start) / max(1, total - start)))


def cosine(step: int, *, warmup: int, total: int, floor: float = 0.1) -> float:
    """Learning-rate factor at ``step``: linear warm-up, then half a cosine down to ``floor``.

    Source: Loshchilov and Hutter, SGDR, arXiv 1608.03983, without restarts.
    """
    fall = 0.5 * (1 + math.cos(math.pi * _progress(step, warmup, total)))
    return _warm(step, warmup) * (floor + (1 - floor) * fall)


def linear(step: int, *, warmup: int, total: int, floor: float = 0.0) -> float:
    """Learning-rate factor at ``step``: linear warm-up, then a straight line down to ``floor``."""
    return _warm(step, warmup) * (1 - (1 - floor) * _progress(step, warmup, total))


def warmup_stable_decay(
    step: int, *, warmup: int, total: int, decay: int, floor: float = 0.0
) -> float:
    """Learning-rate factor at ``step``: warm-up, constant, then a straight line down at the end.

    Source: Hu et al., MiniCPM, arXiv 2404.06395, with a linear decay.
    """
    return _warm(step, warmup) * (1 - (1 - floor) * _progress(step, total - decay, total))


def _steps(value: float, total: int) -> int:
    """Steps meant by ``value``: a share of the run below 1, a number of steps from 1 on."""
    return round(value * total) if value < 1 else round(value)


def _check(name: str, value: float) -> None:
    if value < 0 or (value > 1 and value != round(value)):
        raise ValueError(
            f"{name}={value} is neither a share of the run (0 to 1) nor a whole number of steps"
        )


def _check_floor(floor: float) -> None:
    if not 0 <= floor <= 1:
        raise ValueError(f"floor={floor} is a factor on the learning rate: choose it from 0 to 1")


def _check_room(total: int, **parts: int) -> None:
    if sum(parts.values()) > total:
        named = " and ".join(f"{name} of {steps} steps" for name, steps in parts.items())
        raise ValueError(
            f"the schedule's {named} do not fit into a run of {total} steps; "
            f"give them as shares of the run (0 to 1), or raise trainer.max_steps"
        )


@dataclass(frozen=True, kw_only=True)
class CosineConfig(ScheduleConfig):
    """Warm-up, then half a cosine.

    Example:
        >>> factor = CosineConfig(warmup=10, floor=0.1).build(total=100)
        >>> round(factor(0), 3), factor(10), round(factor(100), 3)
        (0.091, 1.0, 0.1)
    """

    warmup: float = 0.02
    """Warm-up: a share of the run below 1, a number of optimizer steps from 1 on."""
    floor: float = 0.1
    """Factor at the end."""

    def __post_init__(self) -> None:
        _check("warmup", self.warmup)
        _check_floor(self.floor)

    def build(self, *, total: int) -> Callable[[int], float]:
        """Return the factor as a function of the step."""
        warmup = _steps(self.warmup, total)
        _check_room(total, warmup=warmup)
        return partial(cosine, warmup=warmup, total=total, floor=self.floor)


@dataclass(frozen=True, kw_only=True)
class LinearConfig(ScheduleConfig):
    """Warm-up, then a straight line.

    Example:
        >>> factor = LinearConfig(warmup=0.1).build(total=100)
        >>> factor(10), factor(55), factor(100)
        (1.0, 0.5, 0.0)
    """

    warmup: float = 0.02
    """Warm-up: a share of the run below 1, a number of optimizer steps from 1 on."""
    floor: float = 0.0
    """Factor at the end."""

    def __post_init__(self) -> None:
        _check("warmup", self.warmup)
        _check_floor(self.floor)

    def build(self, *, total: int) -> Callable[[int], float]:
        """Return the factor as a function of the step."""
        warmup = _steps(self.warmup, total)
        _check_room(total, warmup=warmup)
        return partial(linear, warmup=warmup, total=total, floor=self.floor)


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecayConfig(ScheduleConfig):
    """Warm-up, a constant stretch, then a straight line: the stretch can be prolonged later.

    Example:
        >>> factor = WarmupStableDecayConfig(warmup=0.1, decay=0.2).build(total=100)
        >>> factor(10), factor(80), round(factor(90), 3)
        (1.0, 1.0, 0.5)
    """

    warmup: float = 0.02
    """Warm-up: a share of the run below 1, a number of optimizer steps from 1 on."""
    decay: float = 0.2
    """Decay at the end: a share of the run below 1, a number of optimizer steps from 1 on."""
    floor: float = 0.0
    """Factor at the end."""

    def __post_init__(self) -> None:
        _check("warmup", self.warmup)
        _check("decay", self.decay)
        _check_floor(self.floor)

    def build(self, *, total: int) -> Callable[[int], float]:
        """Return the factor as a function of the step."""
        warmup, decay = _steps(self.warmup, total), _steps(self.decay, total)
        _check_room(total, warmup=warmup, decay=decay)
        return partial(
            warmup_stable_decay, warmup=warmup, total=total, decay=decay, floor=self.floor
        )
