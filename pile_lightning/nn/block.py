"""The pre-norm residual block: ``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``."""

from torch import Tensor, nn

from pile_lightning.nn.attention import Attention
from pile_lightning.nn.cache import LayerCache
from pile_lightning.nn.feed_forward import FeedForward
from pile_lightning.nn.masks import Mask
from pile_lightning.nn.positions import Rotation

__all__ = ["Block"]


class Block(nn.Module):
    """One layer of a decoder, put together from built parts.

    Args:
        attention: Mixes positions.
        feed_forward: Transforms each position.
        attention_norm: Applied to what attention reads.
        feed_forward_norm: Applied to what the feed-forward layer reads.
        dropout: Share of each layer's output that is dropped before it is added to the stream.

    Example:
        >>> import torch
        >>> from pile_lightning.nn import AttentionConfig, FeedForwardConfig, RMSNormConfig
        >>> block = Block(
        ...     attention=AttentionConfig().build(8),
        ...     feed_forward=FeedForwardConfig().build(8),
        ...     attention_norm=RMSNormConfig().build(8),
        ...     feed_forward_norm=RMSNormConfig().build(8),
        ... )
        >>> block(torch.ones(1, 3, 8)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        *,
        attention: Attention,
        feed_forward: FeedForward,
        attention_norm: nn.Module,
        feed_forward_norm: nn.Module,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.feed_forward_norm = feed_forward_norm
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Mask = None,
        rotation: Rotation | None = None,
        values: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Add both layers' outputs to the stream ``x`` (batch, seq, d_model)."""
        mixed = self.attention(
            self.attention_norm(x), mask=mask, rotation=rotation, values=values, cache=cache
        )
        x = x + self.dropout(mixed)
        out: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return out
