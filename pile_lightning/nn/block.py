"""The pre-norm residual block: ``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``."""

from torch import Tensor, nn

from pile_lightning.nn.attention import Attention
from pile_lightning.nn.cache import LayerCache
from pile_lightning.nn.feed_forward import FeedForward
from pile_lightning.nn.masks import Mask
from pile_lightning.nn.positions import Rotation
from pile_lightning.nn.short_conv import ShortConv, convolve

__all__ = ["Block"]


class Block(nn.Module):
    """One layer of a decoder, put together from built parts.

    Args:
        attention: Mixes positions.
        feed_forward: Transforms each position.
        attention_norm: Applied to what attention reads.
        feed_forward_norm: Applied to what the feed-forward layer reads.
        attention_conv: Applied to what attention reads, after its norm; ``None`` for none.
        feed_forward_conv: Applied to what the feed-forward layer reads; ``None`` for none.
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
        attention_conv: ShortConv | None = None,
        feed_forward_conv: ShortConv | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention_conv = attention_conv
        self.attention = attention
        self.feed_forward_norm = feed_forward_norm
        self.feed_forward_conv = feed_forward_conv
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Mask = None,
        rotation: Rotation | None = None,
        position_ids: Tensor | None = None,
        values: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Add both layers' outputs to the stream ``x`` (batch, seq, d_model)."""
        read = self.attention_norm(x)
        read = convolve(self.attention_conv, read, position_ids, cache, "attention")
        mixed = self.attention(
            read,
            mask=mask,
            rotation=rotation,
            position_ids=position_ids,
            values=values,
            cache=cache,
        )
        x = x + self.dropout(mixed)
        read = self.feed_forward_norm(x)
        read = convolve(self.feed_forward_conv, read, position_ids, cache, "feed_forward")
        out: Tensor = x + self.dropout(self.feed_forward(read))
        return out
