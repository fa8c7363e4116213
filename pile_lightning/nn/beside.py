"""What stands beside a decoder's blocks, and adds to the stream and the values of each."""

from collections.abc import Callable

import torch
from torch import Tensor

from pile_lightning.nn.matches import Matches
from pile_lightning.nn.shortcuts import Shortcuts
from pile_lightning.nn.tables import Tables

__all__ = ["Beside"]


class Beside:
    """What tables, matches and shortcuts add in one forward pass.

    First it reads the tokens (``read``), then the stream before the first block (``start``).

    Args:
        tables: Look-up tables; ``None`` for none.
        matches: What followed the same tokens before; ``None`` for none.
        shortcuts: Ways from the start of the stream; ``None`` for none.
        num_layers: Blocks.
        alike: Give every block values where one has them, zeros if need be: blocks that are
            compiled are then one graph, where those with and without would be two.

    Example:
        >>> import torch
        >>> beside = Beside(None, None, None, num_layers=2)
        >>> ids, positions = torch.zeros(1, 3, dtype=torch.long), torch.arange(3)[None]
        >>> x = beside.read(ids, positions, embed=lambda ids: ids[:, :, None].float())
        >>> beside.start(x)
        >>> after, values = beside.add(x, 0)
        >>> after is x, values is None
        (True, True)
    """

    def __init__(
        self,
        tables: Tables | None,
        matches: Matches | None,
        shortcuts: Shortcuts | None,
        *,
        num_layers: int,
        alike: bool = True,
    ) -> None:
        self.tables, self.matches, self.shortcuts = tables, matches, shortcuts
        self.num_layers, self.alike = num_layers, alike
        self.reach = max(0 if part is None else part.reach for part in (tables, matches))
        """Tokens before its own that a position looks at, at most."""

    def read(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        *,
        embed: Callable[[Tensor], Tensor],
        earlier: Tensor | None = None,
    ) -> Tensor:
        """Embed the tokens, and look up what they and those before them say.

        Args:
            input_ids: Token ids (batch, seq).
            position_ids: Distance from the start of the document (batch or 1, seq).
            embed: Embeds ids.
            earlier: Ids read before these (batch, any), from a cache, of as many as ``reach``.

        Returns:
            What the stream begins with (batch, seq, d_model).
        """
        x, tables = embed(input_ids), self.tables
        self.rows: list[Tensor] = []
        self.matched: Tensor | None = None
        self.values: list[Tensor | None] = [None] * self.num_layers
        if tables is not None:
            x, self.rows = tables.begin(x, embed, input_ids, position_ids, earlier)
            self.values = [tables.value(input_ids, layer) for layer in range(self.num_layers)]
        if self.matches is not None:
            self.matched = self.matches.begin(embed, input_ids, position_ids, earlier)
        return x

    def start(self, x: Tensor) -> None:
        """Take the stream before the first block (batch, seq, d_model)."""
        self.first, shortcuts = x, self.shortcuts
        if shortcuts is not None:
            projected = shortcuts.project(x)
            more = [shortcuts.value(projected, layer) for layer in range(self.num_layers)]
            self.values = [_sum(*pair) for pair in zip(self.values, more, strict=True)]
        known = [value for value in self.values if value is not None]
        if self.alike and 0 < len(known) < self.num_layers:
            nothing = torch.zeros_like(known[0]).requires_grad_(known[0].requires_grad)
            self.values = [nothing if value is None else value for value in self.values]

    def add(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor | None]:
        """Return the stream that a block reads, and what it adds to its values (or None)."""
        if self.tables is not None:
            x = self.tables.add(x, self.rows, layer)
        if self.matches is not None and self.matched is not None:
            x = self.matches.add(x, self.matched, layer)
        if self.shortcuts is not None:
            x = self.shortcuts.add(x, self.first, layer)
        return x, self.values[layer]


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
