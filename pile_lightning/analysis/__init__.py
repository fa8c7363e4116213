"""What many runs say together: the best value of a swept field, and how loss falls with size."""

from pile_lightning.analysis.optimum import Optimum, find_optimum, is_geometric
from pile_lightning.analysis.scaling_law import (
    LEAST_SIZES,
    ScalingFit,
    ScalingLaw,
    fit_scaling_law,
)

__all__ = [
    "LEAST_SIZES",
    "Optimum",
    "ScalingFit",
    "ScalingLaw",
    "find_optimum",
    "fit_scaling_law",
    "is_geometric",
]
