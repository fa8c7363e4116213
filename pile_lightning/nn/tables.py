"""Look-up tables beside a decoder's blocks: parameters that cost no products.

What follows a token is told to a good part by it and the one or two before it, and a table learns
that in a fraction of the tokens that layers need. Rows are found by the token ids alone, and none
reaches over the start of its document. At two million tokens of Python source the three together
took 0.1 bits a byte off.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pile_lightning.nn.checks import check_size
from pile_lightning.nn.initialization import Embedding, learned_scalars
from pile_lightning.nn.precision import to_autocast

__all__ = ["Tables", "TablesConfig"]

# odd factors of the ids of an n-gram in its hash, the last id first
_MULTIPLIERS = (36313, 27191, 48271, 69621, 16807)


@dataclass(frozen=True, kw_only=True)
class TablesConfig:
    """Which tables there are.

    Raises:
        ValueError: For a negative count, or more n-grams than hashes.

    Example:
        >>> tables = TablesConfig(ngram_rows=(64,), value_layers=1)
        >>> tables.build(vocab_size=10, d_model=8, kv_width=4, num_layers=2).reach
        1
    """

    smear: bool = True
    """Add to each looked-up token a learned share of the one before it."""
    ngram_rows: tuple[int, ...] = (16384,)
    """Rows of a hashed table of token pairs, of one of triples, and so on. Its row is added to the
    stream before every block, times a learned scalar (as in hashed n-gram embeddings, Clark et al.,
    2022)."""
    value_layers: int = 2
    """The last so many blocks add a looked-up vector of the token to the values of their
    attention (value embeddings, modded-nanogpt, 2024)."""

    def __post_init__(self) -> None:
        check_size(**{f"ngram_rows[{n}]": rows for n, rows in enumerate(self.ngram_rows)})
        if self.value_layers < 0 or len(self.ngram_rows) >= len(_MULTIPLIERS):
            raise ValueError(
                f"value_layers={self.value_layers} and {len(self.ngram_rows)} n-gram tables: "
                f"choose value_layers of at least 0, and at most {len(_MULTIPLIERS) - 1} tables"
            )

    def build(self, *, vocab_size: int, d_model: int, kv_width: int, num_layers: int) -> "Tables":
        """Make the tables for a decoder."""
        return Tables(
            self,
            vocab_size=vocab_size,
            d_model=d_model,
            kv_width=kv_width,
            num_layers=num_layers,
        )


class Tables(nn.Module):
    """The tables, and how much of each is added where.

    Args:
        config: Which tables there are.
        vocab_size: Number of token ids.
        d_model: Width of the stream.
        kv_width: Width of all values of a block's attention.
        num_layers: Blocks.

    Example:
        >>> tables = TablesConfig(ngram_rows=(64,)).build(
        ...     vocab_size=10, d_model=8, kv_width=8, num_layers=2
        ... )
        >>> previous = tables.previous(torch.tensor([[5, 6, 7]]), torch.tensor([[0, 1, 0]]))
        >>> previous[0].tolist()  # no token before the start of a document
        [[-1, 5, -1]]
    """

    def __init__(
        self,
        config: TablesConfig,
        *,
        vocab_size: int,
        d_model: int,
        kv_width: int,
        num_layers: int,
    ) -> None:
        super().__init__()
        value_layers = min(config.value_layers, num_layers)
        self.first_value_layer = num_layers - value_layers
        self.ngram_rows = config.ngram_rows
        self.reach = max(len(config.ngram_rows), int(config.smear))
        """Tokens before its own that a position looks at."""
        self.ngrams = nn.ModuleList(
            Embedding(rows, d_model, role="lookup") for rows in config.ngram_rows
        )
        self.values = nn.ModuleList(
            Embedding(vocab_size, kv_width, role="lookup") for _ in range(value_layers)
        )
        # what is zero at the start is the tables; a zero here too would stop the gradient of both
        self.ngram_shares = learned_scalars(num_layers * len(config.ngram_rows))
        self.value_shares = learned_scalars(value_layers)
        self.smear_share = learned_scalars(int(config.smear))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put the shares back to where they start; the tables start at zero."""
        if self.ngram_shares is not None:
            nn.init.constant_(self.ngram_shares, 0.1)
        if self.value_shares is not None:
            nn.init.constant_(self.value_shares, 0.5)
        if self.smear_share is not None:
            nn.init.zeros_(self.smear_share)

    def begin(
        self,
        x: Tensor,
        embed: Callable[[Tensor], Tensor],
        input_ids: Tensor,
        position_ids: Tensor,
        earlier: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Smear the embedded tokens, and look their n-grams up.

        Args:
            x: The embedded tokens (batch, seq, d_model).
            embed: Embeds others.
            input_ids: Token ids (batch, seq).
            position_ids: Distance from the start of the document (batch or 1, seq).
            earlier: Ids read before these (batch, any), from a cache.

        Returns:
            What the stream begins with, and for ``add`` the row of each n-gram, in autocast's type.
        """
        previous = self.previous(input_ids, position_ids, earlier)
        rows = [to_autocast(row) for row in self.look_up(input_ids, previous)]
        if self.smear_share is None:
            return x, rows
        known = previous[0] >= 0
        before = embed(previous[0].clamp(min=0)) * known[:, :, None]
        return x + torch.tanh(self.smear_share) * before, rows

    def previous(
        self, input_ids: Tensor, position_ids: Tensor, earlier: Tensor | None = None
    ) -> list[Tensor]:
        """Return for each reach the token ids so many positions before (batch, seq).

        Args:
            input_ids: Token ids (batch, seq).
            position_ids: Distance from the start of the document (batch or 1, seq).
            earlier: Ids read before these (batch, any), from a cache.

        Returns:
            Ids one before, two before, and so on; -1 before the start of the document.
        """
        if earlier is not None:
            input_ids = torch.cat((earlier, input_ids), dim=1)
        seq = position_ids.shape[1]
        shifted = []
        for reach in range(1, self.reach + 1):
            padded = nn.functional.pad(input_ids, (reach, 0), value=-1)[:, :-reach]
            shifted.append(padded[:, -seq:].masked_fill(position_ids < reach, -1))
        return shifted

    def look_up(self, input_ids: Tensor, previous: list[Tensor]) -> list[Tensor]:
        """Return the row of each n-gram table (batch, seq, d_model)."""
        rows, key = [], input_ids * _MULTIPLIERS[0]
        sizes = self.ngram_rows
        for table, size, factor, ids in zip(
            self.ngrams, sizes, _MULTIPLIERS[1:], previous, strict=False
        ):
            key = key ^ ((ids + 2) * factor)
            rows.append(table(key % size))
        return rows

    def add(self, x: Tensor, rows: list[Tensor], layer: int) -> Tensor:
        """Add to the stream what a block gets of each n-gram's row."""
        if self.ngram_shares is None:
            return x
        for number, row in enumerate(rows):
            share = self.ngram_shares[layer * len(rows) + number]
            x = x + share.to(x.dtype) * row.to(x.dtype)
        return x

    def value(self, input_ids: Tensor, layer: int) -> Tensor | None:
        """Return what a block adds to its values (batch, seq, kv_width), or None for nothing."""
        number = layer - self.first_value_layer
        if number < 0 or self.value_shares is None:
            return None
        out: Tensor = self.value_shares[number] * self.values[number](input_ids)
        return out
