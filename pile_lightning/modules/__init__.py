"""The LightningModules."""

from pile_lightning.modules.base import LanguageModule
from pile_lightning.modules.causal import CausalLM

__all__ = ["CausalLM", "LanguageModule"]
