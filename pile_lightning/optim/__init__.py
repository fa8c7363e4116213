"""Optimizers and schedules: AdamW, Muon, and learning rates as functions of the step."""

from pile_lightning.optim.adamw import AdamW, AdamWConfig
from pile_lightning.optim.base import OptimizerConfig, ScheduleConfig
from pile_lightning.optim.groups import ParameterRoles, parameter_roles
from pile_lightning.optim.muon import Muon, MuonConfig, orthogonalise
from pile_lightning.optim.schedules import (
    CosineConfig,
    LinearConfig,
    WarmupStableDecayConfig,
    cosine,
    linear,
    warmup_stable_decay,
)
from pile_lightning.optim.sharded import local

__all__ = [
    "AdamW",
    "AdamWConfig",
    "CosineConfig",
    "LinearConfig",
    "Muon",
    "MuonConfig",
    "OptimizerConfig",
    "ParameterRoles",
    "ScheduleConfig",
    "WarmupStableDecayConfig",
    "cosine",
    "linear",
    "local",
    "orthogonalise",
    "parameter_roles",
    "warmup_stable_decay",
]
