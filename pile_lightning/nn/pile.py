"""``Pile``, the network of the original description: an encoder-decoder with post-norm layers.

It is Vaswani et al. (2017) as ``torch.nn.Transformer`` has it, of this package's parts, and equal
to it where the weights are. What it adds is language modelling with both halves: ``Pile(src)``
hides the future in the encoder, in the decoder and between them. It keeps no cache; ``Decoder``
does.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pile_lightning.nn import masks
from pile_lightning.nn.attention import AttentionConfig
from pile_lightning.nn.checks import check_length, check_share, check_size
from pile_lightning.nn.flops import attention_flops, linear_flops
from pile_lightning.nn.initialization import Embedding, InitConfig, InitRule, Linear, initialize
from pile_lightning.nn.masks import Mask
from pile_lightning.nn.network import NetworkConfig
from pile_lightning.nn.norms import LayerNorm
from pile_lightning.nn.positions import Sinusoidal, SinusoidalConfig
from pile_lightning.nn.post_norm import PostNormDecoderLayer, PostNormEncoderLayer
from pile_lightning.nn.precision import to_autocast
from pile_lightning.nn.vocabulary import project

__all__ = ["Pile", "PileConfig"]


@dataclass(frozen=True, kw_only=True)
class PileConfig(NetworkConfig):
    """The settings of a ``Pile`` that models language.

    Raises:
        ValueError: If the heads do not divide the width, the width is odd, or a count or share is
            out of range.

    Example:
        >>> network = PileConfig(d_model=32, num_heads=4).build(vocab_size=100, max_seq_len=16)
        >>> network(torch.ones(1, 16, dtype=torch.long)).shape
        torch.Size([1, 16, 100])
    """

    d_model: int = 256
    """Width of the stream."""
    num_heads: int = 4
    """Attention heads."""
    num_layers: int = 2
    """Layers of the encoder, and as many of the decoder."""
    d_ff: int | None = None
    """Hidden features of the feed-forward layers; null for 4 * d_model."""
    dropout: float = 0.1
    """Share of the embedding and of each layer's output that is dropped in training."""
    padding_idx: int | None = None
    """The id that stands for no token; null where every id is one, as in packed rows."""

    def __post_init__(self) -> None:
        _check(self.d_model, self.num_heads, self.num_layers, self.dropout)

    def build(self, *, vocab_size: int, max_seq_len: int) -> "Pile":
        """Make the network, with initialised weights."""
        return Pile(
            self.d_model,
            self.num_heads,
            self.num_layers,
            vocab_size,
            padding_idx=self.padding_idx,
            d_ff=self.d_ff,
            dropout=self.dropout,
            max_seq_len=max_seq_len,
        )


class Pile(nn.Module):
    """Embedding times sqrt(d_model), sinusoidal positions, encoder, decoder, linear layer.

    ``Pile(src)`` models language: encoder, decoder and the attention between them are causal, so
    that position t sees nothing after t. ``Pile(src, tgt)`` is sequence to sequence: the encoder
    sees the whole source, the decoder what was decoded, and padding is hidden. Both give logits,
    which is what a loss wants; ``probabilities`` takes the softmax.

    The original writes masked attention as ``softmax(Q K^T / sqrt(d_k)) V`` times a mask.
    Multiplied in after the softmax, later keys still stand in its denominator: every weight depends
    on them. Here the mask goes in before the softmax, as scores of -inf, and they count for
    nothing.

    Args:
        d_model: Width of the stream.
        nhead: Attention heads.
        num_layers: Layers of the encoder, and as many of the decoder.
        num_tokens: Size of the vocabulary.
        padding_idx: The id that stands for no token, or ``None``.
        d_ff: Hidden features of the feed-forward layers; ``None`` for 4 * d_model.
        dropout: Share of the embedding and of each layer's output that is dropped in training.
        max_seq_len: The longest sequence that it accepts; ``None`` for any.

    Example:
        >>> network = Pile(32, 4, 2, 100)
        >>> src, tgt = torch.ones(1, 5, dtype=torch.long), torch.ones(1, 3, dtype=torch.long)
        >>> network(src).shape, network(src, tgt).shape
        (torch.Size([1, 5, 100]), torch.Size([1, 3, 100]))
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        num_layers: int,
        num_tokens: int,
        padding_idx: int | None = 0,
        *,
        d_ff: int | None = None,
        dropout: float = 0.1,
        max_seq_len: int | None = None,
    ) -> None:
        super().__init__()
        _check(d_model, nhead, num_layers, dropout)
        self.d_model, self.nhead, self.num_layers = d_model, nhead, num_layers
        self.padding_idx, self.max_seq_len = padding_idx, max_seq_len
        self.embedding = Embedding(num_tokens, d_model, role="embedding", padding_idx=padding_idx)
        self.positions = Sinusoidal()
        self.dropout = nn.Dropout(dropout)
        d_ff = 4 * d_model if d_ff is None else d_ff
        self.encoder = nn.ModuleList(
            PostNormEncoderLayer(d_model, num_heads=nhead, d_ff=d_ff, dropout=dropout)
            for _ in range(num_layers)
        )
        self.encoder_norm = LayerNorm(d_model)
        self.decoder = nn.ModuleList(
            PostNormDecoderLayer(d_model, num_heads=nhead, d_ff=d_ff, dropout=dropout)
            for _ in range(num_layers)
        )
        self.decoder_norm = LayerNorm(d_model)
        self.head = Linear(d_model, num_tokens, role="head", bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill all weights: variance 1/fan_in, so that embeddings times sqrt(d_model) have 1."""
        plain = InitRule(distribution="uniform", scaled_by="fan_in")
        embedding = InitRule(distribution="normal", scaled_by="fan_in")
        table = InitConfig(embedding=embedding, input=plain, output=plain, head=plain)
        initialize(self, table, num_layers=2 * self.num_layers)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor | None = None,
        *,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
    ) -> Tensor:
        """Compute the logits (batch, seq, vocab) of what follows each position of the last input.

        Args:
            src: Token ids (batch, source).
            tgt: Token ids (batch, target); ``None`` models the language of ``src`` itself.
            position_ids: Distance from the start of the document (batch, source); ``None`` counts
                from 0 in each. Without ``tgt`` only.
            document_ids: The document of each position (batch, source); ``None`` means one a row.
                Without ``tgt`` only.

        Raises:
            ValueError: If a sequence is longer than ``max_seq_len``, or ids that describe packed
                rows come with ``tgt``.
        """
        x = self.hidden(src, tgt, position_ids=position_ids, document_ids=document_ids)
        return project(x, self.head_weight)

    def probabilities(self, src: Tensor, tgt: Tensor | None = None) -> Tensor:
        """Compute the probabilities (batch, seq, vocab) of what follows each position."""
        return self.forward(src, tgt).float().softmax(-1)

    def hidden(
        self,
        src: Tensor,
        tgt: Tensor | None = None,
        *,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
    ) -> Tensor:
        """Compute what the head is applied to (batch, seq, d_model), as ``forward`` would."""
        if tgt is not None and (position_ids is not None or document_ids is not None):
            raise ValueError(
                "position_ids and document_ids describe packed rows of one language, and tgt makes "
                "it sequence to sequence; leave them out, with one pair of sequences a row"
            )
        if tgt is None:
            if position_ids is None and document_ids is not None:
                position_ids = masks.Documents.of(document_ids).positions()
            allowed = self._causal(src, document_ids)
            x = self._embed(src, position_ids)
            memory = self.encode(x, mask=allowed)
            return self.decode(x, memory, mask=allowed, memory_mask=allowed)
        real = self._padding(src)
        memory = self.encode(self._embed(src), mask=real)
        return self.decode(self._embed(tgt), memory, mask=self._causal(tgt), memory_mask=real)

    def encode(self, x: Tensor, *, mask: Mask) -> Tensor:
        """Run the embedded source ``x`` (batch, source, d_model) through the encoder."""
        for layer in self.encoder:
            x = layer(x, mask=mask)
        out: Tensor = self.encoder_norm(x)
        return out

    def decode(self, x: Tensor, memory: Tensor, *, mask: Mask, memory_mask: Mask) -> Tensor:
        """Run the embedded target ``x`` (batch, target, d_model) through the decoder."""
        for layer in self.decoder:
            x = layer(x, memory, mask=mask, memory_mask=memory_mask)
        out: Tensor = self.decoder_norm(x)
        return out

    @property
    def head_weight(self) -> Tensor:
        """The matrix (vocab, d_model) of the linear layer, which has no bias."""
        return self.head.weight

    @property
    def blocks(self) -> nn.ModuleList:
        """All layers, to be compiled or sharded one at a time."""
        return nn.ModuleList([*self.encoder, *self.decoder])

    @property
    def num_parameters(self) -> int:
        """Count the parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self, seq_len: int) -> float:
        """Count the operations of training on one token of language, as ``Counted`` does."""
        return linear_flops(self) + attention_flops(
            num_layers=3 * self.num_layers,  # the encoder's, the decoder's, and those between them
            width=self.d_model,
            seq_len=seq_len,
        )

    def _embed(self, ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Look up and place the tokens: the start of the stream, in autocast's type."""
        check_length(ids.shape[1], self.max_seq_len)
        if position_ids is None:
            position_ids = torch.arange(ids.shape[1], device=ids.device)[None]
        x = self.embedding(ids) * math.sqrt(self.d_model)
        return to_autocast(self.dropout(self.positions.embed(x, position_ids)))

    def _causal(self, ids: Tensor, document_ids: Tensor | None = None) -> Mask:
        """Allow what is no padding, in the same document, and not later."""
        if self.padding_idx is None and document_ids is None:
            return masks.CAUSAL
        allowed = masks.causal(ids.shape[1], device=ids.device)
        if document_ids is not None:
            allowed = allowed & masks.document(document_ids)
        real = self._padding(ids)
        return allowed if real is None else allowed & real

    def _padding(self, ids: Tensor) -> Tensor | None:
        """Allow what is no padding."""
        return None if self.padding_idx is None else masks.padding(ids != self.padding_idx)


def _check(d_model: int, num_heads: int, num_layers: int, dropout: float) -> None:
    """Raise a ValueError where the settings do not fit together."""
    head_dim = AttentionConfig(num_heads=num_heads).resolve_head_dim(d_model)
    SinusoidalConfig().validate(d_model=d_model, head_dim=head_dim)
    check_size(d_model=d_model, num_layers=num_layers)
    check_share(dropout=dropout)
