"""What stands beside a decoder's blocks, and adds to the stream and the values of each."""

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
        rows: What the tables' n-grams give.

    Example:
        >>> import torch
        >>> ids, start = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3, 8)
        >>> beside = Beside(None, None, input_ids=ids, start=start, rows=[])
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
        rows: list[Tensor],
    ) -> None:
        self.tables, self.shortcuts = tables, shortcuts
        self.input_ids, self.start, self.rows = input_ids, start, rows
        self.projected = None if shortcuts is None else shortcuts.project(start)

    def add(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor | None]:
        """Return the stream that a block reads, and what it adds to its values (or None)."""
        values = None
        if self.tables is not None:
            x = self.tables.add(x, self.rows, layer)
            values = self.tables.value(self.input_ids, layer)
        if self.shortcuts is not None:
            x = self.shortcuts.add(x, self.start, layer)
            more = self.shortcuts.value(self.projected, layer)
            values = more if values is None else values if more is None else values + more
        return x, values
