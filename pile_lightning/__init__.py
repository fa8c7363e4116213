"""pile_lightning: PyTorch Lightning modules that train language Transformers.

The names below are the ones to start from; ``nn``, ``optim``, ``data``, ``metrics``, ``callbacks``
and ``parallel`` hold the parts. Each is imported when it is first used: torch and Lightning take
seconds, which ``pile --help`` does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pile_lightning.version import __version__

if TYPE_CHECKING:
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

_MODULES = {
    "TokenBatch": "pile_lightning.batch",
    "StreamedText": "pile_lightning.data",
    "TextData": "pile_lightning.data",
    "CausalLM": "pile_lightning.modules",
    "Coupling": "pile_lightning.modules",
    "Distillation": "pile_lightning.modules",
    "Ensemble": "pile_lightning.modules",
    "Environment": "pile_lightning.modules",
    "Halving": "pile_lightning.modules",
    "LanguageModule": "pile_lightning.modules",
    "MutualLearning": "pile_lightning.modules",
    "SharedPart": "pile_lightning.modules",
    "DecoderConfig": "pile_lightning.nn",
    "NetworkConfig": "pile_lightning.nn",
    "Pile": "pile_lightning.nn",
    "ShardedStrategy": "pile_lightning.parallel",
    "SpreadStrategy": "pile_lightning.parallel",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        found = getattr(import_module(_MODULES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
