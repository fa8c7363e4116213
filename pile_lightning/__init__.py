"""pile_lightning: PyTorch Lightning modules that train language Transformers.

The names below are the ones to start from; ``nn``, ``optim``, ``data``, ``metrics``, ``callbacks``
and ``parallel`` hold the parts.
"""

from pile_lightning.batch import TokenBatch
from pile_lightning.data import StreamedText, TextData
from pile_lightning.modules import (
    CausalLM,
    Coupling,
    Distillation,
    Ensemble,
    Environment,
    Halving,
    LanguageModule,
    MutualLearning,
    SharedPart,
)
from pile_lightning.nn import DecoderConfig, NetworkConfig, Pile
from pile_lightning.parallel import ShardedStrategy, SpreadStrategy
from pile_lightning.version import __version__

__all__ = [
    "CausalLM",
    "Coupling",
    "DecoderConfig",
    "Distillation",
    "Ensemble",
    "Environment",
    "Halving",
    "LanguageModule",
    "MutualLearning",
    "NetworkConfig",
    "Pile",
    "SharedPart",
    "ShardedStrategy",
    "SpreadStrategy",
    "StreamedText",
    "TextData",
    "TokenBatch",
    "__version__",
]
