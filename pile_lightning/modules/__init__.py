"""The LightningModules."""

from pile_lightning.modules.base import LanguageModule
from pile_lightning.modules.causal import CausalLM
from pile_lightning.modules.environment import (
    Coupling,
    Distillation,
    Ensemble,
    Environment,
    Halving,
    MutualLearning,
    SharedPart,
)

__all__ = [
    "CausalLM",
    "Coupling",
    "Distillation",
    "Ensemble",
    "Environment",
    "Halving",
    "LanguageModule",
    "MutualLearning",
    "SharedPart",
]
