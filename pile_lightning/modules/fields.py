"""The kinds of config that fields of modules are of: any sub-class may be named by class_path."""

from typing import Any

from pile_lightning.modules.environment.coupling import Coupling
from pile_lightning.nn import (
    MatchesConfig,
    NetworkConfig,
    NormConfig,
    PositionsConfig,
    ShortConvConfig,
    ShortcutsConfig,
    TablesConfig,
)
from pile_lightning.optim import OptimizerConfig, ScheduleConfig

__all__ = ["CONFIGS"]

CONFIGS: list[Any] = [
    Coupling,
    MatchesConfig,
    NetworkConfig,
    NormConfig,
    OptimizerConfig,
    PositionsConfig,
    ScheduleConfig,
    ShortConvConfig,
    ShortcutsConfig,
    TablesConfig,
]
