"""The default network: a decoder-only Transformer, composed of small configs.

By its defaults it is the plain recipe that learnt fastest at a few minutes on two cores: two heads
of 128, squared ReLU, no biases, rotary positions, queries and keys normalised, the head tied to the
embedding, whose looked-up rows are normalised, and output projections that start at zero. Llama,
GPT-2 and their kin are other values of the same fields.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn

from pile_lightning.nn.attention import AttentionConfig
from pile_lightning.nn.beside import Beside
from pile_lightning.nn.block import Block
from pile_lightning.nn.cache import KVCache, uncompiled
from pile_lightning.nn.checks import check_length, check_positive, check_share, check_size
from pile_lightning.nn.feed_forward import FeedForwardConfig
from pile_lightning.nn.flops import attention_flops, linear_flops
from pile_lightning.nn.initialization import Embedding, InitConfig, Linear, initialize
from pile_lightning.nn.logit_cap import cap_logits
from pile_lightning.nn.matches import MatchesConfig
from pile_lightning.nn.network import NetworkConfig
from pile_lightning.nn.norms import NormConfig, RMSNormConfig
from pile_lightning.nn.placing import place
from pile_lightning.nn.positions import PositionsConfig, RopeConfig
from pile_lightning.nn.precision import to_autocast
from pile_lightning.nn.short_conv import ShortConvConfig
from pile_lightning.nn.shortcuts import ShortcutsConfig
from pile_lightning.nn.tables import TablesConfig
from pile_lightning.nn.vocabulary import project

__all__ = ["Decoder", "DecoderConfig"]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(NetworkConfig):
    """A decoder-only Transformer.

    Raises:
        ValueError: If the parts do not fit together: heads that do not divide the width, rotary
            features that do not pair up, a count or bound that is not positive, a dropout outside
            [0, 1).

    Example:
        >>> config = DecoderConfig(d_model=32, num_layers=2)
        >>> config.build(vocab_size=100, max_seq_len=16).num_parameters
        27940
    """

    d_model: int = 256
    """Width of the residual stream."""
    num_layers: int = 4
    """Blocks, each attention and feed-forward."""
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    """Heads."""
    feed_forward: FeedForwardConfig = field(default_factory=FeedForwardConfig)
    """Feed-forward layers."""
    norm: NormConfig = field(default_factory=RMSNormConfig)
    """Norm before each layer and before the head."""
    positions: PositionsConfig = field(default_factory=RopeConfig)
    """How the network knows where a token stands."""
    tie_embeddings: bool = True
    """Use the embedding's matrix as the head's."""
    embedding_norm: NormConfig | None = field(default_factory=lambda: RMSNormConfig(gain="none"))
    """Norm of each looked-up row; null for none."""
    short_conv: ShortConvConfig | None = None
    """Convolutions over the few positions before, in every block; null for none."""
    tables: TablesConfig | None = None
    """Look-up tables beside the blocks; null for none."""
    matches: MatchesConfig | None = None
    """What followed the last time that the same few tokens came, for every block; null for none."""
    shortcuts: ShortcutsConfig | None = None
    """Ways from the embedding to every block; null for none."""
    logit_cap: float | None = None
    """Bound that the logits are bent to, see ``cap_logits``; null for none."""
    dropout: float = 0.0
    """Share of the embedding and of each layer's output that is dropped in training."""
    init: InitConfig = field(default_factory=InitConfig)
    """How the weights start."""

    def __post_init__(self) -> None:
        check_size(d_model=self.d_model, num_layers=self.num_layers)
        check_share(dropout=self.dropout)
        if self.logit_cap is not None:
            check_positive(logit_cap=self.logit_cap)
        head_dim = self.attention.resolve_head_dim(self.d_model)
        self.positions.validate(d_model=self.d_model, head_dim=head_dim)

    def build(self, *, vocab_size: int, max_seq_len: int) -> "Decoder":
        """Make the network, with initialised weights."""
        return Decoder(self, vocab_size=vocab_size, max_seq_len=max_seq_len)

    def build_block(self) -> Block:
        """Make one block."""
        conv, width = self.short_conv, self.d_model
        return Block(
            attention=self.attention.build(width, conv=conv),
            feed_forward=self.feed_forward.build(width),
            attention_norm=self.norm.build(width),
            feed_forward_norm=self.norm.build(width),
            attention_conv=None if conv is None else conv.build("inputs", width),
            feed_forward_conv=None if conv is None else conv.build("inputs", width),
            dropout=self.dropout,
        )


class Decoder(nn.Module):
    """Embedding, blocks, norm, head.

    Under ``torch.autocast`` the residual stream takes autocast's type right after the embedding, so
    that the whole stream, not only the products, moves half the bytes; parameters, norms, angles
    and the loss stay in float32.

    It offers everything that ``network`` names: ``CappedHead``, ``Cached``, ``Counted``,
    ``Uniform``, ``blocks``.

    Args:
        config: The settings.
        vocab_size: Number of token ids.
        max_seq_len: The longest sequence that it accepts.

    Example:
        >>> import torch
        >>> network = Decoder(DecoderConfig(d_model=32), vocab_size=100, max_seq_len=16)
        >>> network(torch.zeros(1, 16, dtype=torch.long)).shape
        torch.Size([1, 16, 100])
    """

    def __init__(self, config: DecoderConfig, *, vocab_size: int, max_seq_len: int) -> None:
        super().__init__()
        self.config = config
        self.max_seq_len = max_seq_len
        width = config.d_model
        self.embedding = Embedding(vocab_size, width, role="embedding")
        norm = config.embedding_norm
        self.embedding_norm = nn.Identity() if norm is None else norm.build(width)
        head_dim = config.attention.resolve_head_dim(width)
        self.positions = config.positions.build(
            d_model=width, head_dim=head_dim, max_seq_len=max_seq_len
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(config.build_block() for _ in range(config.num_layers))
        self.norm = config.norm.build(width)
        kv_width = config.attention.resolve_kv_heads() * head_dim
        sizes = {"d_model": width, "kv_width": kv_width, "num_layers": config.num_layers}
        tables, matches, shortcuts = config.tables, config.matches, config.shortcuts
        self.tables = None if tables is None else tables.build(vocab_size=vocab_size, **sizes)
        depth = config.num_layers
        self.matches = None if matches is None else matches.build(d_model=width, num_layers=depth)
        self.shortcuts = None if shortcuts is None else shortcuts.build(**sizes)
        self.head: nn.Module | None = None
        if not config.tie_embeddings:
            self.head = Linear(width, vocab_size, role="head", bias=False)
        self.laid_out_head: nn.Module | None = None
        self.uniform = False
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill all weights by the config's table: for a network that was built on the meta device.

        After ``to_empty`` and the same seed, they are those of a network built directly.
        """
        initialize(self, self.config.init, num_layers=self.config.num_layers)

    def forward(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Compute the logits (batch, seq, vocab); arguments as for ``hidden``."""
        x = self.hidden(
            input_ids,
            position_ids=position_ids,
            document_ids=document_ids,
            mask=mask,
            cache=cache,
        )
        return self._logits(x)

    def hidden(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Compute the normalised stream (batch, seq, d_model) that the head is applied to.

        Args:
            input_ids: Token ids (batch, seq).
            position_ids: Distance from the start of the document (batch, seq); ``None`` counts from
                0 in each document, or from the end of what the cache holds.
            document_ids: The document of each position (batch, seq), one lying after another;
                ``None`` means one a row, which the attention kernel runs without reading a mask.
            mask: What may attend to what, see ``masks``; ``None`` means causal within each
                document.
            cache: Keys and values of what was read before, to which these are added.

        Raises:
            ValueError: If the sequence is longer than ``max_seq_len``, or ``document_ids`` come
                with a mask or a cache, which leave them no say.
        """
        read_before = 0 if cache is None else cache.length
        check_length(input_ids.shape[1] + read_before, self.max_seq_len)
        position_ids, allowed = place(
            input_ids,
            position_ids=position_ids,
            document_ids=document_ids,
            mask=mask,
            cache=cache,
            uniform=self.uniform,
            flex=self.config.attention.documents == "flex",
        )
        beside = Beside(
            self.tables,
            self.matches,
            self.shortcuts,
            num_layers=len(self.blocks),
            alike=self.uniform and cache is None,
        )
        earlier = None if cache is None else cache.recent_ids.kept
        x = beside.read(input_ids, position_ids, embed=self._look_up, earlier=earlier)
        x = to_autocast(self.dropout(self.positions.embed(x, position_ids)))
        beside.start(x)
        placed: dict[str, Any] = {"rotation": self.positions.rotation(position_ids)}
        if self.config.short_conv is not None:
            placed["position_ids"] = position_ids
        layers = [None] * len(self.blocks) if cache is None else cache.layers
        with nullcontext() if cache is None else uncompiled():
            for index, (block, layer) in enumerate(zip(self.blocks, layers, strict=True)):
                x, values = beside.add(x, index)
                x = block(x, mask=allowed, values=values, cache=layer, **placed)
        if cache is not None:
            cache.advance(input_ids, beside.reach)
        out: Tensor = self.norm(x)
        return out

    def make_uniform(self) -> None:
        """Call blocks in one form from now on, as ``Uniform`` says."""
        self.uniform = True

    @property
    def logit_cap(self) -> float | None:
        """The bound that the logits are bent to; None for none."""
        return self.config.logit_cap

    @property
    def head_weight(self) -> Tensor:
        """The head's matrix (vocab, d_model): the embedding's where they are tied."""
        owner = self.embedding if self.head is None else self.head
        return cast(Tensor, owner.weight)

    def make_cache(self, batch_size: int, *, max_len: int | None = None) -> KVCache:
        """Make an empty cache for ``max_len`` positions; ``None`` means ``max_seq_len``."""
        room = self.max_seq_len if max_len is None else max_len
        return KVCache(num_layers=len(self.blocks), batch_size=batch_size, max_len=room)

    def next_logits(self, input_ids: Tensor, *, cache: KVCache) -> Tensor:
        """Add ``input_ids`` (batch, seq) to ``cache``; compute the last position's logits only."""
        return self._logits(self.hidden(input_ids, cache=cache)[:, -1])

    def use_head(self, head: nn.Module) -> None:
        """Compute logits by ``head`` from now on, which has the same matrix laid out otherwise."""
        self.laid_out_head = head
        if self.head is not None:
            self.head = head

    def _logits(self, x: Tensor) -> Tensor:
        head = self.laid_out_head
        logits = project(x, self.head_weight) if head is None else cast(Tensor, head(x))
        return cap_logits(logits, self.logit_cap)

    @property
    def num_parameters(self) -> int:
        """Parameters, a tied matrix counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self, seq_len: int) -> float:
        """Count the operations of training on one token, by the conventions of ``Counted``."""
        tied_head = 6.0 * self.head_weight.numel() if self.head is None else 0.0
        heads = self.config.attention
        width = heads.num_heads * heads.resolve_head_dim(self.config.d_model)
        attention = attention_flops(num_layers=len(self.blocks), width=width, seq_len=seq_len)
        return linear_flops(self) + tied_head + attention

    def _look_up(self, ids: Tensor) -> Tensor:
        """Return the normalised rows of the embedding (batch, seq, d_model)."""
        out: Tensor = self.embedding_norm(self.embedding(ids))
        return out
