"""The order of rows as a pure function: row i depends on the seed, the number of rows and i alone.

Each epoch is a keyed permutation, computed where it is asked for, so that an epoch needs no index
in memory and row ten billion is found as fast as row ten.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["RowOrder", "rows_at", "shuffled"]

Words = npt.NDArray[np.uint64]

_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# narrower halves of a Feistel network mix too little
_SMALLEST_BITS = 8


@dataclass(frozen=True, kw_only=True)
class RowOrder:
    """Rows 0 to ``num_rows - 1`` in a new order every epoch, without end.

    A Feistel network permutes the numbers of just enough bits; a number that leaves the range is
    permuted again until it is back in it (cycle walking), which is a permutation of the range.
    Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002.

    Example:
        >>> order = RowOrder(num_rows=5, seed=0)
        >>> sorted(order.row_at(np.arange(5)).tolist())
        [0, 1, 2, 3, 4]
        >>> order.row_at(np.arange(5, 10)).tolist() == order.row_at(np.arange(5)).tolist()
        False
    """

    num_rows: int
    """Rows of an epoch."""
    seed: int
    """Seeds differ in the order of every epoch."""

    def __post_init__(self) -> None:
        if self.num_rows < 1:
            raise ValueError(f"num_rows={self.num_rows}: an order needs at least one row")

    def row_at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the rows at positions of the endless stream (n,), int64."""
        seed = np.array([self.seed % (1 << 64)], dtype=np.uint64)  # scalars warn when they wrap
        return rows_at(positions, num_rows=np.array([self.num_rows]), seed=seed)


def rows_at(
    positions: npt.NDArray[np.int64],
    *,
    num_rows: npt.NDArray[np.int64],
    seed: Words,
) -> npt.NDArray[np.int64]:
    """Return the rows at positions (n,) of endless streams, each with its own rows and seed.

    Args:
        positions: Places in the stream.
        num_rows: Rows of an epoch (n,), or one number for all (1,).
        seed: Of the orders (n,), or one for all (1,).
    """
    size = num_rows.astype(np.uint64)
    epochs, offsets = np.divmod(positions.astype(np.uint64), size)
    bits = np.maximum(_SMALLEST_BITS, np.frexp(num_rows - 1)[1]).astype(np.uint64)
    keys = _mix(_mix(seed + _GOLDEN) + epochs)
    rows = _permute(offsets, keys, bits)
    size, bits = np.broadcast_to(size, rows.shape), np.broadcast_to(bits, rows.shape)
    while (outside := np.flatnonzero(rows >= size)).size:
        rows[outside] = _permute(rows[outside], keys[outside], bits[outside])
    return rows.astype(np.int64)


def shuffled(size: int, *key: int) -> npt.NDArray[np.int64]:
    """Return the numbers below ``size`` in an order that the key alone decides.

    Unlike numpy's generators it is the same in every release: a checkpoint may outlive several.

    Example:
        >>> sorted(shuffled(3, 0, 7).tolist()), shuffled(0, 1).tolist()
        ([0, 1, 2], [])
    """
    if size < 2:
        return np.arange(size)
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    seed = np.frombuffer(digest, ">u8").astype(np.uint64)
    # sorted, as all of them are wanted; a keyed permutation of few numbers walks long
    return np.argsort(_mix(_mix(seed) + np.arange(size, dtype=np.uint64) * _GOLDEN), kind="stable")


def _permute(values: Words, keys: Words, bits: Words) -> Words:
    """Permute numbers of ``bits`` bits: halves (one bit apart where odd) take turns to change."""
    low = bits >> np.uint64(1)
    high = bits - low
    left, right = values >> low, values & _ones(low)
    for round_number in range(_ROUNDS):
        keys = keys + _GOLDEN
        width = high if round_number % 2 == 0 else low
        left, right = right, left ^ (_mix(right ^ keys) & _ones(width))
    permuted: Words = (left << low) | right
    return permuted


def _ones(bits: Words) -> Words:
    return (np.uint64(1) << bits) - np.uint64(1)


def _mix(x: Words) -> Words:
    """Scramble 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
