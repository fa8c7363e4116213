"""The layers of the first Transformer: each part is added to the stream and normalised after it."""

from typing import Any

from torch import Tensor, nn

from pile_lightning.nn.attention import AttentionConfig, CrossAttention
from pile_lightning.nn.feed_forward import FeedForwardConfig
from pile_lightning.nn.masks import Mask
from pile_lightning.nn.norms import LayerNorm

__all__ = ["PostNorm", "PostNormDecoderLayer", "PostNormEncoderLayer"]


class PostNorm(nn.Module):
    """``norm(x + dropout(layer(x)))``.

    Args:
        layer: Reads the stream, and whatever else it is called with.
        d_model: Width of the stream.
        dropout: Share of the layer's output that is dropped before it is added.

    Example:
        >>> import torch
        >>> PostNorm(nn.Linear(4, 4), d_model=4)(torch.ones(2, 4)).shape
        torch.Size([2, 4])
    """

    def __init__(self, layer: nn.Module, *, d_model: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer = layer
        self.norm = LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Add the layer's output to ``x`` (..., d_model) and normalise."""
        out: Tensor = self.norm(x + self.dropout(self.layer(x, *args, **kwargs)))
        return out


class PostNormEncoderLayer(nn.Module):
    """Self-attention, then feed-forward, with biases and ReLU.

    Example:
        >>> import torch
        >>> layer = PostNormEncoderLayer(8, num_heads=2, d_ff=16)
        >>> layer(torch.ones(1, 3, 8)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, d_model: int, *, num_heads: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__()
        attention = AttentionConfig(num_heads=num_heads, qk_norm=None, bias=True).build(d_model)
        feed_forward = FeedForwardConfig(d_ff=d_ff, activation="relu", bias=True).build(d_model)
        self.attention = PostNorm(attention, d_model=d_model, dropout=dropout)
        self.feed_forward = PostNorm(feed_forward, d_model=d_model, dropout=dropout)

    def forward(self, x: Tensor, *, mask: Mask = None) -> Tensor:
        """Transform the stream ``x`` (batch, seq, d_model)."""
        out: Tensor = self.feed_forward(self.attention(x, mask=mask))
        return out


class PostNormDecoderLayer(nn.Module):
    """Self-attention, attention to an encoder's output, then feed-forward.

    Example:
        >>> import torch
        >>> layer = PostNormDecoderLayer(8, num_heads=2, d_ff=16)
        >>> layer(torch.ones(1, 3, 8), torch.ones(1, 5, 8)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, d_model: int, *, num_heads: int, d_ff: int, dropout: float = 0.0) -> None:
        super().__init__()
        attention = AttentionConfig(num_heads=num_heads, qk_norm=None, bias=True).build(d_model)
        cross_attention = CrossAttention(d_model, num_heads=num_heads, bias=True)
        feed_forward = FeedForwardConfig(d_ff=d_ff, activation="relu", bias=True).build(d_model)
        self.attention = PostNorm(attention, d_model=d_model, dropout=dropout)
        self.cross_attention = PostNorm(cross_attention, d_model=d_model, dropout=dropout)
        self.feed_forward = PostNorm(feed_forward, d_model=d_model, dropout=dropout)

    def forward(
        self, x: Tensor, memory: Tensor, *, mask: Mask = None, memory_mask: Mask = None
    ) -> Tensor:
        """Transform the stream ``x`` (batch, target, d_model), which sees ``memory``."""
        x = self.cross_attention(self.attention(x, mask=mask), memory, mask=memory_mask)
        out: Tensor = self.feed_forward(x)
        return out
