"""Keys and values of what has been read, so that generation computes each position once.

The storage is static: room for ``max_len`` positions, allocated when the first keys arrive (only
then are their type, device and number of heads known: autocast and tensor parallelism change them),
and never moved again. What is returned to attention are views of its filled part.
"""

import torch
from torch import Tensor

__all__ = ["KVCache", "LayerCache"]


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
        self.batch_size = batch_size
        self.max_len = max_len
        self.length = 0
        self._storage: tuple[Tensor, Tensor] | None = None

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add ``keys`` and ``values`` (batch, kv_heads, new, head_dim) and return all there are.

        Returns:
            Keys and values (batch, kv_heads, length, head_dim): views of the storage.

        Raises:
            ValueError: If they do not fit, in number or in batch size.
        """
        batch, heads, new, dim = keys.shape
        start, end = self.length, self.length + new
        if end > self.max_len:
            raise ValueError(
                f"the cache holds {start} of max_len={self.max_len} positions, and {new} more do "
                f"not fit; make it with a larger max_len, or reset() it and read a shorter window"
            )
        if batch != self.batch_size:
            raise ValueError(
                f"the cache was made for batch_size={self.batch_size} and got a batch of {batch}; "
                f"make one with make_cache({batch})"
            )
        if self._storage is None:
            room = (batch, heads, self.max_len, dim)
            self._storage = keys.new_empty(room), values.new_empty(room)
        all_keys, all_values = self._storage
        all_keys[:, :, start:end] = keys
        all_values[:, :, start:end] = values
        self.length = end
        return all_keys[:, :, :end], all_values[:, :, :end]


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
        self.recent_ids: Tensor | None = None
        """The last ids read (batch, few), for a network that looks at more than keys."""
        self.layers = [
            LayerCache(batch_size=batch_size, max_len=max_len) for _ in range(num_layers)
        ]

    @property
    def length(self) -> int:
        """Positions held, the same in every layer between two forwards."""
        return self.layers[-1].length

    def remember(self, input_ids: Tensor, num_ids: int) -> None:
        """Keep the last ``num_ids`` of the ids read so far, ``input_ids`` (batch, seq) last."""
        if self.recent_ids is not None:
            input_ids = torch.cat((self.recent_ids, input_ids), dim=1)
        self.recent_ids = input_ids[:, max(0, input_ids.shape[1] - num_ids) :]

    def reset(self) -> None:
        """Forget everything and keep the storage."""
        self.recent_ids = None
        for layer in self.layers:
            layer.length = 0
