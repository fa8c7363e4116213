"""What a run will need and do, before it is started: memory, traffic, and speed by formula.

Nothing here allocates a network, prepares data or needs a GPU. ``pile plan`` puts it together.
"""

from pile_lightning.plan.hardware import GPUS, Gpu, find_gpu
from pile_lightning.plan.layout import alternatives
from pile_lightning.plan.live_bytes import Kind, LiveBytes
from pile_lightning.plan.memory import Gathering, RankMemory, rank_memory
from pile_lightning.plan.parameters import ParameterCounts, ParameterSize, count_parameters
from pile_lightning.plan.precision import Precision
from pile_lightning.plan.speed import Speed, estimate_speed
from pile_lightning.plan.step import StepProfile, profile_step
from pile_lightning.plan.traffic import Transfer, transfers

__all__ = [
    "GPUS",
    "Gathering",
    "Gpu",
    "Kind",
    "LiveBytes",
    "ParameterCounts",
    "ParameterSize",
    "Precision",
    "RankMemory",
    "Speed",
    "StepProfile",
    "Transfer",
    "alternatives",
    "count_parameters",
    "estimate_speed",
    "find_gpu",
    "profile_step",
    "rank_memory",
    "transfers",
]
