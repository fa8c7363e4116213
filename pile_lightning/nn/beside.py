"""What stands beside a decoder's blocks, and adds to the stream and the values of each."""

import torch
from torch import Tensor

from pile_lightning.nn.shortcuts import Shortcuts
from pile_lightning.nn.tables import Tables

__all__ = ["Beside"]


class Beside:
    """What tables and shortcuts add in one forward pass.

    Args:
        tables: Look-up tables; ``None`` for none.
        shortcuts: Ways from the start of the stream; ``None`` for none.
        input_ids: Token ids (batch, seq).
        start: The stream before the first block (batch, seq, d_model).
        num_layers: Blocks.
        rows: What the tables' n-grams give.
        alike: Give every block values where one has them, zeros if need be: blocks that are
            compiled are then one graph, where those with and without would be two.

    Example:
        >>> import torch
        >>> ids, start = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3, 8)
        >>> beside = Beside(None, None, input_ids=ids, start=start, num_layers=2, rows=[])
        >>> x, values = beside.add(start, 0)
        >>> x is start, values is None
        (True, True)
    """

    def __init__(
        self,
        tables: Tables | None,
        shortcuts: Shortcuts | None,
        *,
        input_ids: Tensor,
        start: Tensor,
        num_layers: int,
        rows: list[Tensor],
        alike: bool = True,
    ) -> None:
        self.tables, self.shortcuts = tables, shortcuts
        self.start, self.rows = start, rows
        self.values: list[Tensor | None] = [None] * num_layers
        if tables is not None:
            self.values = [tables.value(input_ids, layer) for layer in range(num_layers)]
        if shortcuts is not None:
            projected = shortcuts.project(start)
            more = [shortcuts.value(projected, layer) for layer in range(num_layers)]
            self.values = [_sum(*pair) for pair in zip(self.values, more, strict=True)]
        known = [value for value in self.values if value is not None]
        if alike and 0 < len(known) < num_layers:
            nothing = torch.zeros_like(known[0]).requires_grad_(known[0].requires_grad)
            self.values = [nothing if value is None else value for value in self.values]

    def add(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor | None]:
        """Return the stream that a block reads, and what it adds to its values (or None)."""
        if self.tables is not None:
            x = self.tables.add(x, self.rows, layer)
        if self.shortcuts is not None:
            x = self.shortcuts.add(x, self.start, layer)
        return x, self.values[layer]


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
