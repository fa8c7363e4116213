"""A source: documents in a fixed order, whole or in shards that are read on their own."""

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pile_lightning.data.readers import MAX_RECORD_BYTES, Document, Skipped

__all__ = ["Shard", "ShardedSource", "Source"]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A part of a source that is read on its own: a file, or a range of one."""

    name: str
    """Which part: a path within the source and, of a part of a file, its range. It stays the same
    when the source moves to another place."""
    num_bytes: int | None = None
    """About how many bytes it takes to read, if known."""
    identity: str
    """What changes when reading the shard gives other documents; the place does not count."""
    held_out: bool = False
    """Whether all of it is held out; else what is depends on each document's content."""


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Documents of one domain, or of several that they name themselves, in a fixed order.

    A source is read more than once, by several processes, so it must yield the same documents each
    time and be picklable. Two methods make one, as in the example; one of many files should rather
    be a ``ShardedSource``.

    Example:
        >>> class Squares(Source):
        ...     def documents(self):
        ...         return (Document(f"{i} squared is {i * i}", f"square {i}") for i in range(3))
        ...
        ...     def fingerprint(self):
        ...         return "squares up to 3"
        >>> source = Squares(name="squares")
        >>> [document.text for document in source.documents()][2]
        '2 squared is 4'
        >>> [document.name for document in source.read(source.shards()[0], start=1)]
        ['square 1', 'square 2']
    """

    name: str = ""
    """The domain, under which metrics are logged."""
    weight: float | None = None
    """Share of the tokens in a mixture, relative to the others'; None: its natural share."""
    max_record_bytes: int | None = None
    """Bytes of the largest record; None: what the data module says."""

    def __post_init__(self) -> None:
        if self.weight is not None and not self.weight > 0:
            raise ValueError(
                f"weight={self.weight} of source {self.name!r} is no share of a mixture; give a "
                f"number above 0, leave the source out, or leave weight out for its natural share"
            )

    @property
    def record_limit(self) -> int:
        """Bytes of the largest record."""
        return MAX_RECORD_BYTES if self.max_record_bytes is None else self.max_record_bytes

    def limited(self, max_record_bytes: int) -> "Source":
        """Return the source with a largest record, unless it has one of its own."""
        if self.max_record_bytes is not None:
            return self
        source = copy.copy(self)
        object.__setattr__(source, "max_record_bytes", max_record_bytes)
        return source

    @abstractmethod
    def documents(self) -> Iterator[Document | Skipped]:
        """Yield every document, and a ``Skipped`` for each that cannot be read: none is lost."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return what changes when the documents change, without reading them."""

    def shards(self) -> Sequence[Shard]:
        """Return the parts that can be read on their own, in a fixed order, without reading them.

        One after the other they are ``documents()``.
        """
        name = self.name or "documents"
        return [Shard(name=name, num_bytes=self.num_bytes(), identity=self.fingerprint())]

    def read(self, shard: Shard, start: int = 0) -> Iterator[Document | Skipped]:
        """Yield what a shard holds, from the item numbered ``start`` on.

        Everything that is yielded counts as one, also a ``Skipped``: a reader that saw n items
        goes on later with ``start=n`` and gets exactly the rest.
        """
        return islice(self.documents(), start, None)

    def divide(self, shard: Shard, num_bytes: int) -> Sequence[Shard]:
        """Return smaller shards of about ``num_bytes`` that hold together what one holds, in order.

        Many readers of few shards read faster if each has parts of its own. By default, and where a
        part can only be found by reading what comes before, that is the shard itself.
        """
        return [shard]

    def num_bytes(self) -> int | None:
        """Return about how many bytes ``documents`` reads, for a progress bar, if known."""
        return None

    def content_fingerprint(self) -> str:
        """Return what changes when the documents change, and stays when files are copied.

        A stream that goes on is held to it, so it may read. By default it is ``fingerprint``.
        """
        return self.fingerprint()

    def left_out(self) -> str:
        """Return in a line what there is and not read, nothing where all of it is."""
        return ""


@dataclass(frozen=True, kw_only=True)
class ShardedSource(Source):
    """A source that is defined by its shards: give it ``shards`` and ``read``.

    Example:
        >>> class Tables(ShardedSource):
        ...     def shards(self):
        ...         return [Shard(name=f"table {i}", identity="v1") for i in (2, 3)]
        ...
        ...     def read(self, shard, start=0):
        ...         factor = int(shard.name.split()[1])
        ...         for i in range(start, 10):
        ...             yield Document(f"{i} x {factor} = {i * factor}", f"{shard.name}:{i}")
        >>> [document.text for document in Tables(name="tables").documents()][::9]
        ['0 x 2 = 0', '9 x 2 = 18', '8 x 3 = 24']
    """

    @abstractmethod
    def shards(self) -> Sequence[Shard]:
        """Return the parts to read on their own, in a fixed order, without reading them."""

    @abstractmethod
    def read(self, shard: Shard, start: int = 0) -> Iterator[Document | Skipped]:
        """Yield what a shard holds, from the item numbered ``start`` on."""

    def documents(self) -> Iterator[Document | Skipped]:
        """Yield what each shard holds, one shard after the other."""
        for shard in self.shards():
            yield from self.read(shard)

    def fingerprint(self) -> str:
        """Hash the shards' names and identities."""
        listing = [[shard.name, shard.identity] for shard in self.shards()]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()

    def num_bytes(self) -> int | None:
        """Return the sum of the shards', if all of them are known."""
        sizes = [shard.num_bytes for shard in self.shards()]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None
