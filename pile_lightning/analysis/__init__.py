"""What many runs say together: the best value of a field, and how loss falls with size and text."""

from pile_lightning.analysis.cost import Cost, cost_between
from pile_lightning.analysis.optimum import Optimum, find_optimum, is_geometric
from pile_lightning.analysis.scaling_law import (
    LEAST_SIZES,
    ScalingFit,
    ScalingLaw,
    fit_scaling_law,
)
from pile_lightning.analysis.settings import Setting, rank_settings, tried
from pile_lightning.analysis.token_law import (
    Allocation,
    TokenFit,
    TokenLaw,
    distinct_counts,
    fit_token_law,
)

__all__ = [
    "Allocation",
    "Cost",
    "LEAST_SIZES",
    "Optimum",
    "ScalingFit",
    "ScalingLaw",
    "Setting",
    "TokenFit",
    "TokenLaw",
    "cost_between",
    "distinct_counts",
    "find_optimum",
    "fit_scaling_law",
    "fit_token_law",
    "is_geometric",
    "rank_settings",
    "tried",
]
