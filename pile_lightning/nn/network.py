"""What a network is to the rest of the package: a config that builds it, and what it answers.

A network is any ``nn.Module`` with::

    forward(input_ids, *, position_ids=None, document_ids=None) -> logits

``input_ids`` (batch, seq) are token ids. ``position_ids`` (batch, seq) are distances from the start
of the document, ``None`` meaning 0 .. seq-1. ``document_ids`` (batch, seq) say which document a
position belongs to, one lying after another, and no position may attend outside its own; ``None``
means one document a row. ``logits`` are (batch, seq, vocab), those at position ``t`` for the token
at ``t + 1``. That is all.

Five small protocols describe what a network may offer beyond it; callers ask with ``isinstance``.
They hold methods and properties only, never plain attributes: ``isinstance`` looks at the class,
and what ``nn.Module`` keeps for an instance (parameters, sub-modules) is not to be found there. For
the same reason the one optional attribute has no protocol: an ``nn.ModuleList`` called ``blocks``
holds the layers that are alike, to be compiled or sharded one at a time.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from pile_lightning.nn.cache import KVCache

__all__ = ["Cached", "CappedHead", "ChunkedHead", "Counted", "NetworkConfig", "Uniform"]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ABC):
    """The settings of a network: a frozen, keyword-only dataclass of plain data that builds it.

    Derive from it to bring a network of your own. What the data decides, the size of the vocabulary
    and the longest sequence, is no field: it is handed to ``build``.

    Example:
        >>> from dataclasses import dataclass
        >>> from torch import nn
        >>> class Bigram(nn.Module):
        ...     def __init__(self, vocab_size):
        ...         super().__init__()
        ...         self.table = nn.Embedding(vocab_size, vocab_size)
        ...     def forward(self, input_ids, *, position_ids=None, document_ids=None):
        ...         return self.table(input_ids)
        >>> @dataclass(frozen=True, kw_only=True)
        ... class BigramConfig(NetworkConfig):
        ...     def build(self, *, vocab_size, max_seq_len):
        ...         return Bigram(vocab_size)
        >>> BigramConfig().build(vocab_size=10, max_seq_len=8)
        Bigram(
          (table): Embedding(10, 10)
        )
    """

    @property
    def origin(self) -> str | None:
        """Folder or name of what was trained elsewhere, where its weights are read from there."""
        return None

    @abstractmethod
    def build(self, *, vocab_size: int, max_seq_len: int) -> nn.Module:
        """Make the network, with initialised weights, for ids below ``vocab_size``.

        Args:
            vocab_size: Number of token ids.
            max_seq_len: The longest sequence that it will be given.
        """


@runtime_checkable
class ChunkedHead(Protocol):
    """A network with logits ``hidden @ head_weight.T``: its loss need never hold them whole."""

    def hidden(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
    ) -> Tensor:
        """Compute what the head is applied to (batch, seq, d_model), as ``forward`` would."""
        ...

    @property
    def head_weight(self) -> Tensor:
        """The head's matrix (vocab, d_model)."""
        ...


@runtime_checkable
class CappedHead(ChunkedHead, Protocol):
    """A network whose logits are those of its head, bent to a bound: see ``cap_logits``."""

    @property
    def logit_cap(self) -> float | None:
        """The bound; None for none."""
        ...


@runtime_checkable
class Cached(Protocol):
    """A network that can go on from the keys and values of what it has read."""

    def make_cache(self, batch_size: int, *, max_len: int | None = None) -> KVCache:
        """Make an empty cache for ``max_len`` positions; ``None`` means the longest sequence."""
        ...

    def next_logits(self, input_ids: Tensor, *, cache: KVCache) -> Tensor:
        """Read ``input_ids`` (batch, seq) after what ``cache`` holds, and add them to it.

        Returns:
            The logits (batch, vocab) after the last position, the only ones that are computed.
        """
        ...


@runtime_checkable
class Counted(Protocol):
    """A network that knows its own cost."""

    def flops_per_token(self, seq_len: int) -> float:
        """Count the floating-point operations of training on one token of a row of ``seq_len``.

        Forward and backward, matrix products only, two operations a multiply-add; nothing for
        recomputation. Attention is counted in full, as if nothing were masked: 12 * layers * heads
        * head_dim * seq_len. These are the conventions of nanoGPT's and llm-foundry's MFU.
        """
        ...


@runtime_checkable
class Uniform(Protocol):
    """A network that can call its blocks in one form: compiled, they are then one graph."""

    def make_uniform(self) -> None:
        """Give every block, at every call, arguments of the same kinds and shapes from now on."""
        ...
