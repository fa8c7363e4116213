"""Keys and values of what has been read, so that generation computes each position once.

The storage is static: room for ``max_len`` positions of ``batch_size`` rows, allocated when the
first keys arrive (only then are their type, device and number of heads known: autocast and tensor
parallelism change them), and never moved again. What attention gets are views of its filled part.
Rows may be of different lengths: each begins at position 0 of its own row, and a mask hides what
lies past its end.
"""

from collections import defaultdict
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from pile_lightning.nn import masks
from pile_lightning.nn.masks import Mask
from pile_lightning.nn.recent import Recent

__all__ = ["KVCache", "LayerCache", "uncompiled"]


class LayerCache:
    """The keys and values of one attention layer.

    Example:
        >>> import torch
        >>> layer = LayerCache(batch_size=1, max_len=8)
        >>> keys, values = layer.append(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
        >>> keys, values = layer.append(torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4))
        >>> keys.shape, layer.length
        (torch.Size([1, 2, 4, 4]), 4)
    """

    def __init__(self, *, batch_size: int, max_len: int) -> None:
        self.max_len = max_len
        self.num_rows = batch_size
        """Rows in use, the first of those that there is room for."""
        self.length = 0
        """Positions of the longest row."""
        self.ends: Tensor | None = None
        """Where each row ends (rows,), if not all at ``length``."""
        self.recent: defaultdict[str, Recent] = defaultdict(Recent)
        """By name, what else a layer looks back at, of a few positions."""
        self._batch_size = batch_size
        self._storage: tuple[Tensor, Tensor] | None = None
        self._whole: tuple[LayerCache, int] | None = None

    def part(self, row: int, num_rows: int) -> "LayerCache":
        """Return an empty cache of so many rows from ``row`` on, which are these rows."""
        part = LayerCache(batch_size=num_rows, max_len=self.max_len)
        part._whole = self, row
        return part

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add ``keys`` and ``values`` (rows, kv_heads, new, head_dim) and return all there are.

        Returns:
            Keys and values (rows, kv_heads, length, head_dim): views of the storage.

        Raises:
            ValueError: If they do not fit, in number or in batch size.
        """
        rows, _, new, _ = keys.shape
        start, end = self.length, self.length + new
        if end > self.max_len:
            raise ValueError(
                f"the cache holds {start} of max_len={self.max_len} positions, and {new} more do "
                f"not fit; make it with a larger max_len, or reset() it and read a shorter window"
            )
        if rows != self.num_rows:
            raise ValueError(
                f"the cache was made for batch_size={self.num_rows} and got a batch of {rows}; "
                f"make one with make_cache({rows})"
            )
        all_keys, all_values = self._room(keys)
        if self.ends is None:
            all_keys[:rows, :, start:end] = keys.detach()
            all_values[:rows, :, start:end] = values.detach()
        elif new == 1:
            row = torch.arange(rows, device=keys.device)
            all_keys[row, :, self.ends] = keys.detach()[:, :, 0]
            all_values[row, :, self.ends] = values.detach()[:, :, 0]
        else:
            raise ValueError(
                f"{new} positions a row came for rows of different lengths, which are read one "
                f"position at a time; read them into a cache of their own and put() that"
            )
        self.length = end
        return all_keys[:rows, :, :end], all_values[:rows, :, :end]

    def for_one_query(self) -> tuple[Tensor, Tensor]:
        """Return keys and values (rows, kv_heads, at least length, head_dim), cheap to multiply.

        What is past the length is to be masked.
        """
        assert self._storage is not None
        keys, values = (tensor[: self.num_rows] for tensor in self._storage)
        # a product reads whole tensors as they are and copies parts of them
        if keys.stride(-1) != 1 and 2 * self.length >= self.max_len:
            return keys, values
        return keys[:, :, : self.length], values[:, :, : self.length]

    def put(self, row: int, other: "LayerCache | None", other_row: int) -> None:
        """Let ``row`` hold what a row of ``other`` does; ``None`` for nothing."""
        for name in {*self.recent, *(() if other is None else other.recent)}:
            recent = None if other is None else other.recent[name]
            self.recent[name].put(row, recent, other_row, num_rows=self.num_rows)
        # a part's keys are there already
        if other is None or other._storage is None or other._whole is not None:
            return
        for own, new in zip(self._room(other._storage[0]), other._storage, strict=True):
            own[row, :, : other.length] = new[other_row, :, : other.length]

    def drop(self, row: int) -> None:
        """Forget ``row``; the last row takes its place."""
        last = self.num_rows - 1
        for recent in self.recent.values():
            recent.drop(row)
        if row != last:
            for tensor in self._storage or ():
                tensor[row, :, : self.length] = tensor[last, :, : self.length]

    def _room(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the storage (batch, kv_heads, max_len, head_dim), made at first."""
        if self._storage is None and self._whole is not None:
            whole, row = self._whole
            keys, values = whole._room(like)
            end = row + self._batch_size
            self._storage = keys[row:end], values[row:end]
        if self._storage is None:
            _, heads, _, dim = like.shape
            # zeros: what a mask hides counts nothing, unless it is not a number
            values = like.new_zeros(self._batch_size, heads, self.max_len, dim)
            keys = torch.zeros_like(values)
            if like.device.type == "cpu" and like.dtype in (torch.bfloat16, torch.float16):
                # stored the other way round, their product with one query is six times as fast
                keys = keys.transpose(2, 3).contiguous().transpose(2, 3)
            self._storage = keys, values
        return self._storage


class KVCache:
    """One ``LayerCache`` for each layer of a network.

    Args:
        num_layers: Attention layers that keep something.
        batch_size: Rows that are read side by side.
        max_len: Positions that there is room for.

    Example:
        >>> cache = KVCache(num_layers=2, batch_size=1, max_len=8)
        >>> len(cache.layers), cache.length, cache.max_len
        (2, 0, 8)
    """

    def __init__(self, *, num_layers: int, batch_size: int, max_len: int) -> None:
        self.max_len = max_len
        self.batch_size = batch_size
        self.recent_ids = Recent()
        """The last ids read, for a network that looks at more than keys."""
        self.layers = [
            LayerCache(batch_size=batch_size, max_len=max_len) for _ in range(num_layers)
        ]
        self._lengths: list[int] | None = None

    @property
    def length(self) -> int:
        """Positions held by the longest row, the same in every layer between two forwards."""
        return self.layers[-1].length

    @property
    def num_rows(self) -> int:
        """Rows in use."""
        return self.layers[-1].num_rows

    @property
    def lengths(self) -> list[int]:
        """Positions held by each row."""
        return [self.length] * self.num_rows if self._lengths is None else self._lengths

    # -- where what is read next stands -----------------------------------------------------------

    def positions(self, new: int, device: torch.device) -> Tensor:
        """Return the positions (rows or 1, new) of what is read next."""
        ends = self.layers[-1].ends
        if ends is not None:
            return ends[:, None]
        return torch.arange(self.length, self.length + new, device=device)[None]

    def mask(self, new: int, device: torch.device) -> Mask:
        """Return the cheapest mask that lets what is read next see its row and nothing later."""
        ends, start = self.layers[-1].ends, self.length
        if ends is not None:
            return masks.prefix(ends + 1, start + 1)
        if start == 0:
            return masks.CAUSAL
        return None if new == 1 else masks.causal(new, start + new, device=device)

    def advance(self, input_ids: Tensor, num_ids: int) -> None:
        """Note that ``input_ids`` (rows, new) were read, and keep the last ``num_ids`` of all."""
        if self._lengths is not None:
            self._settle([length + input_ids.shape[1] for length in self._lengths])
        if num_ids:
            self.recent_ids.add(input_ids, keep=num_ids)

    # -- rows that come and go --------------------------------------------------------------------

    def reset(self) -> None:
        """Forget everything and keep the storage."""
        self.recent_ids = Recent()
        self._lengths = None
        for layer in self.layers:
            layer.length, layer.num_rows, layer.ends = 0, self.batch_size, None
            layer.recent.clear()

    def clear(self) -> None:
        """Have no rows, and keep the storage: ``put`` brings them one by one."""
        self.reset()
        self._settle([])

    def part(self, row: int, num_rows: int) -> "KVCache":
        """Return an empty cache of so many rows from ``row`` on, to read them in their place.

        What is read is there for ``put`` to take note of, at no cost.
        """
        part = KVCache(num_layers=0, batch_size=num_rows, max_len=self.max_len)
        part.layers = [layer.part(row, num_rows) for layer in self.layers]
        return part

    def put(self, row: int, other: "KVCache | None" = None, other_row: int = 0) -> None:
        """Let ``row`` hold what a row of ``other`` does; ``None`` for nothing.

        Args:
            row: One that is in use, or one after them, which then are.
            other: A cache of the same network, whose rows are all as long.
            other_row: A row of it.
        """
        lengths = [*self.lengths, *[0] * (row + 1 - self.num_rows)]
        lengths[row] = 0 if other is None else other.length
        self._settle(lengths)
        recent = None if other is None else other.recent_ids
        self.recent_ids.put(row, recent, other_row, num_rows=self.num_rows)
        for number, layer in enumerate(self.layers):
            layer.put(row, None if other is None else other.layers[number], other_row)

    def drop(self, row: int) -> None:
        """Forget ``row``; the last row takes its place."""
        lengths, last = list(self.lengths), self.num_rows - 1
        for layer in self.layers:
            layer.drop(row)
        self.recent_ids.drop(row)
        lengths[row] = lengths[last]
        self._settle(lengths[:last])

    def _settle(self, lengths: list[int]) -> None:
        """Let the rows hold so many positions each."""
        even = len(set(lengths)) < 2
        self._lengths = None if even and len(lengths) == self.batch_size else lengths
        storage = self.layers[-1]._storage
        device = None if storage is None else storage[0].device
        ends = None if even else torch.tensor(lengths, device=device)
        for layer in self.layers:
            layer.length, layer.num_rows = max(lengths, default=0), len(lengths)
            layer.ends = ends


def uncompiled() -> AbstractContextManager[None]:
    """Run compiled blocks as they are written: each length of a cache would be compiled anew."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance
