"""The last few positions of rows that are read step by step: ids, or what a layer made of them."""

import torch
from torch import Tensor

__all__ = ["Recent"]


class Recent:
    """Keeps what stood at the last positions of each row.

    Rows may be of different lengths; what stands before the first position of a short one is zeros,
    which nobody is to look at.

    Example:
        >>> recent = Recent()
        >>> recent.add(torch.tensor([[1, 2, 3]]), keep=2).tolist()  # what was read, and all of it
        [[1, 2, 3]]
        >>> recent.add(torch.tensor([[4]]), keep=2).tolist()
        [[2, 3, 4]]
    """

    def __init__(self) -> None:
        self.kept: Tensor | None = None
        """The last positions (rows, few, ...), the same number of each row; ``None`` for none."""

    def add(self, new: Tensor, *, keep: int) -> Tensor:
        """Read ``new`` (rows, positions, ...), and keep the last ``keep`` positions of all.

        Returns:
            What was kept before, and ``new`` after it.
        """
        whole = new if self.kept is None else torch.cat((self.kept, new), dim=1)
        self.kept = whole[:, max(0, whole.shape[1] - keep) :].detach()
        return whole

    def put(self, row: int, other: "Recent | None", other_row: int, *, num_rows: int) -> None:
        """Let ``row``, of ``num_rows``, hold what a row of ``other`` does; ``None`` for nothing."""
        own = self.kept
        new = None if other is None or other.kept is None else other.kept[other_row]
        like = own[0] if new is None and own is not None else new
        if like is None:
            return
        width = max(len(like), 0 if own is None else own.shape[1])
        kept = like.new_zeros(num_rows, width, *like.shape[1:])
        if own is not None:
            kept[: len(own), width - own.shape[1] :] = own
        kept[row] = 0
        if new is not None:
            kept[row, width - len(new) :] = new
        self.kept = kept

    def drop(self, row: int) -> None:
        """Forget ``row``; the last row takes its place."""
        if self.kept is None:
            return
        last = len(self.kept) - 1
        order = list(range(last + 1))
        order[row] = last
        self.kept = self.kept[order[:last]]
