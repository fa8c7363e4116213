"""Which lane reads which records of a source: dealt anew in every epoch, a function of the seed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from pile_lightning.data.order import shuffled
from pile_lightning.data.sources import Shard, Source

__all__ = ["Deal", "Unit", "pieces_for", "source_seed"]

_UNITS_A_LANE = 4
_SMALLEST_PIECE = 1 << 16


class Unit(NamedTuple):
    """What a lane reads in one go: a shard, or where lanes outnumber shards every n-th record."""

    shard: int
    """Index of the shard in its source."""
    stripe: int
    """The unit has the records of the shard whose number leaves this remainder ..."""
    num_stripes: int
    """... when divided by this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Deal:
    """Which lane reads what in each epoch: every record of every shard, in one lane.

    Shards are shuffled by seed and epoch and go, one after the other, to the lane with the fewest
    bytes so far. Where shards are few, lanes share each of them, record by record: then a shard is
    read by several lanes, of which each leaves out what is the others'.

    Example:
        >>> shards = [Shard(name=name, num_bytes=1, identity="") for name in "abcdefgh"]
        >>> lanes = Deal(shards=shards, num_lanes=2, seed=0).units(epoch=0)
        >>> sorted(unit.shard for units in lanes for unit in units)
        [0, 1, 2, 3, 4, 5, 6, 7]
    """

    shards: Sequence[Shard]
    num_lanes: int
    seed: int
    shuffle: bool = True
    """Whether each epoch has an order of its own."""
    _known: dict[int, list[list[Unit]]] = field(default_factory=dict, init=False, repr=False)

    def units(self, epoch: int) -> list[list[Unit]]:
        """Return each lane's units in the order in which it reads them."""
        if epoch not in self._known:
            if len(self._known) > 3:  # the lanes of a process are in the same epoch, or in two
                self._known.clear()
            self._known[epoch] = self._deal(epoch)
        return self._known[epoch]

    def _deal(self, epoch: int) -> list[list[Unit]]:
        # several units a lane, so that none is left without text
        wanted = -(-_UNITS_A_LANE * self.num_lanes // max(1, len(self.shards)))
        stripes = min(wanted, self.num_lanes)
        units = [Unit(s, k, stripes) for s in range(len(self.shards)) for k in range(stripes)]
        lanes: list[list[Unit]] = [[] for _ in range(self.num_lanes)]
        loads = [(0.0, lane) for lane in range(self.num_lanes)]
        order = shuffled(len(units), self.seed, epoch) if self.shuffle else np.arange(len(units))
        for number in order.tolist():
            unit = units[number]
            load, lane = heappop(loads)
            lanes[lane].append(unit)
            num_bytes = (self.shards[unit.shard].num_bytes or 1) / stripes
            heappush(loads, (load + num_bytes, lane))
        return lanes


def pieces_for(source: Source, num_lanes: int) -> list[Shard]:
    """Return a source's shards, split where that gives each lane parts of its own to read."""
    shards = [shard for shard in source.shards() if not shard.held_out]
    sizes = [shard.num_bytes for shard in shards]
    if None in sizes:
        return shards
    total = sum(size or 0 for size in sizes)
    num_bytes = max(_SMALLEST_PIECE, total // (_UNITS_A_LANE * num_lanes))
    return [piece for shard in shards for piece in source.divide(shard, num_bytes)]


def source_seed(seed: int, name: str) -> int:
    """Return the seed of one source: what one source is dealt does not hang on the others."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
