"""Optimizers and schedules: AdamW, Muon, and learning rates as functions of the step."""

from pile_lightning.optim.adamw import AdamW, AdamWConfig
from pile_lightning.optim.averaging import (
    AVERAGE,
    averages,
    ema_decay,
    exchange,
    forget,
    update_average,
)
from pile_lightning.optim.base import OptimizerConfig, ScheduleConfig
from pile_lightning.optim.finite import NonFiniteGradients
from pile_lightning.optim.groups import ParameterRoles, describe_groups, parameter_roles
from pile_lightning.optim.joint import (
    JointOptimizer,
    joint_schedule,
    part_of_optimizer,
    part_of_schedule,
    put_back,
)
from pile_lightning.optim.muon import Muon, MuonConfig, step_together
from pile_lightning.optim.newton_schulz import orthogonalise
from pile_lightning.optim.schedules import (
    CosineConfig,
    LinearConfig,
    WarmupStableDecayConfig,
    cosine,
    linear,
    warmup_stable_decay,
)
from pile_lightning.optim.sharded import local
from pile_lightning.optim.step_schedule import StepSchedule
from pile_lightning.optim.width import meant_for, rate_factor, width_of

__all__ = [
    "AVERAGE",
    "AdamW",
    "AdamWConfig",
    "CosineConfig",
    "JointOptimizer",
    "LinearConfig",
    "Muon",
    "MuonConfig",
    "NonFiniteGradients",
    "OptimizerConfig",
    "ParameterRoles",
    "ScheduleConfig",
    "StepSchedule",
    "WarmupStableDecayConfig",
    "averages",
    "cosine",
    "describe_groups",
    "ema_decay",
    "exchange",
    "forget",
    "joint_schedule",
    "linear",
    "local",
    "meant_for",
    "orthogonalise",
    "parameter_roles",
    "part_of_optimizer",
    "part_of_schedule",
    "put_back",
    "rate_factor",
    "step_together",
    "update_average",
    "warmup_stable_decay",
    "width_of",
]
