"""Scores of language models, as torchmetrics."""

from pile_lightning.metrics.text import BitsPerByte, Perplexity

__all__ = ["BitsPerByte", "Perplexity"]
