"""Several models in one run: members, what they learn from one another, and how they are judged."""

from pile_lightning.modules.environment.coupling import (
    Coupling,
    Distillation,
    Ensemble,
    MutualLearning,
)
from pile_lightning.modules.environment.environment import Environment
from pile_lightning.modules.environment.halving import Halving
from pile_lightning.modules.environment.sharing import SharedPart

__all__ = [
    "Coupling",
    "Distillation",
    "Ensemble",
    "Environment",
    "Halving",
    "MutualLearning",
    "SharedPart",
]
