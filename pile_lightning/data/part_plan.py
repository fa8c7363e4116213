"""Which shards of a source are prepared together, as one part, and what the part is called.

A part's name is a hash of all that decides what it holds, so whoever needs the same part again
finds it. Where one part ends and the next begins is read off the shards themselves: files that are
added, changed or removed change the parts around them and no other.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pile_lightning.data.source import Shard, Source

__all__ = ["FORMAT", "PartPlan", "PartSettings", "group_shards", "shard_key"]

FORMAT = 4
"""Version of the layout; what has another version is made again."""

_MEAN_BYTES = 2 << 20
_LARGE_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True)
class PartSettings:
    """What decides what a part holds, besides the text."""

    tokenizer: str
    """The tokenizer's fingerprint."""
    bound: float
    """Hashes below are held out."""
    train: bool = True
    """Whether documents to learn from are kept, or only those held out."""


@dataclass(frozen=True, kw_only=True)
class PartPlan:
    """One part: to be made, or made already."""

    source: Source
    shards: tuple[Shard, ...]
    settings: PartSettings
    held_out_bytes: int | None = None
    """Bytes of held-out text to stop at; None reads everything."""

    @property
    def name(self) -> str:
        """Hash of what decides its content."""
        settings = self.settings
        listing = [
            FORMAT,
            settings.tokenizer,
            repr(settings.bound),
            settings.train,
            self.held_out_bytes,
            [shard_key(self.source, shard) for shard in self.shards],
        ]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:32]

    @property
    def num_bytes(self) -> int | None:
        """About how many bytes it takes to read, if known."""
        if self.held_out_bytes is not None:
            return self.held_out_bytes
        sizes = [shard.num_bytes for shard in self.shards if shard.num_bytes is not None]
        return sum(sizes) if len(sizes) == len(self.shards) else None


def shard_key(source: Source, shard: Shard) -> str:
    """Return what stays the same as long as a shard gives the same documents."""
    kind = type(source)
    listing = [kind.__module__, kind.__qualname__, shard.name, shard.identity]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]


def group_shards(shards: Iterable[Shard]) -> Iterator[tuple[Shard, ...]]:
    """Yield the shards of each part.

    A large shard is a part of its own. Among smaller ones a part ends behind every shard that is
    told so by its name's hash, with a chance that grows with its size: parts are of some megabytes.

    Example:
        >>> shards = [Shard(name=f"{i}.txt", num_bytes=500_000, identity="") for i in range(20)]
        >>> [len(group) for group in group_shards(shards)]
        [2, 1, 16, 1]
        >>> [len(group) for group in group_shards(shards[1:])]
        [1, 1, 16, 1]
    """
    group: list[Shard] = []
    for shard in shards:
        size = _LARGE_BYTES if shard.num_bytes is None else shard.num_bytes
        if size >= _LARGE_BYTES and group:
            yield tuple(group)
            group = []
        group.append(shard)
        if size >= _MEAN_BYTES * _chance(shard.name):
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)


def _chance(name: str) -> float:
    """Return a number from 0 to 1 that depends on the name only."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
