"""One document alone: its last part, from a line end on, is held out.

Documents are held out whole, by their content, so that copies never straddle. Where there is one
alone, or copies of one, that cannot be: then each is read as two documents, or, for the many
readers of a stream, as several pieces to learn from and one that is held out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from pile_lightning.data.readers import Document, Skipped
from pile_lightning.data.source import Shard, ShardedSource, Source

__all__ = ["CutPlace", "CutDocument", "cut_documents", "cut_text", "is_one_document"]

_SMALLEST_PIECE = 64
_NEAR = 4096


class CutPlace(NamedTuple):
    """Where a document is cut."""

    name: str
    """Of the document."""
    line: int
    """The first line that is held out, from 1."""
    byte: int
    """How many bytes of UTF-8 come before."""
    num_bytes: int
    """Of the document."""

    def describe(self) -> str:
        """Say it in a line."""
        share = 1 - self.byte / self.num_bytes
        return (
            f"one document alone: the last {share:.1%} of {self.name} are held out, from line "
            f"{self.line:,} (byte {self.byte:,}) on"
        )


@dataclass(frozen=True, kw_only=True)
class _Piece(Shard):
    number: int
    """Of the pieces to learn from."""


@dataclass(frozen=True, kw_only=True)
class CutDocument(ShardedSource):
    r"""The only document of another source, in pieces, the last of which is held out.

    Example:
        >>> class Poem(Source):
        ...     def documents(self):
        ...         yield Document("one\ntwo\nthree\n", "poem")
        ...
        ...     def fingerprint(self):
        ...         return "poem"
        >>> cut = CutDocument(source=Poem(), val_fraction=0.4)
        >>> [(shard.held_out, [d.text for d in cut.read(shard)]) for shard in cut.shards()]
        [(False, ['one\ntwo\n']), (True, ['three\n'])]
    """

    source: Source
    """Holds the document."""
    val_fraction: float
    """About which share of it is held out."""
    num_pieces: int = 1
    """In how many pieces the rest is read, at most."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the text out: whoever gets a copy reads it again."""
        return {key: value for key, value in self.__dict__.items() if key != "_items"}

    def shards(self) -> Sequence[_Piece]:
        """Return the pieces to learn from, and the one that is held out."""
        source = self.source
        identity = f"{source.fingerprint()} {self.val_fraction!r} {self.num_pieces}"
        num_bytes = source.num_bytes()
        held_out = None if num_bytes is None else int(num_bytes * self.val_fraction)
        rest = None if num_bytes is None or held_out is None else num_bytes - held_out
        pieces = [
            _Piece(
                name=f"piece {number} of {self.num_pieces}",
                num_bytes=None if rest is None else rest // self.num_pieces,
                identity=identity,
                number=number,
            )
            for number in range(self.num_pieces)
        ]
        last = _Piece(
            name="held out", num_bytes=held_out, identity=identity, held_out=True, number=-1
        )
        return [*pieces, last]

    def read(self, shard: Shard, start: int = 0) -> Iterator[Document | Skipped]:
        """Yield a piece of the document, and with the first what is none."""
        assert isinstance(shard, _Piece), f"{shard.name} is no shard of a CutDocument"
        yield from self._pieces(shard)[start:]

    def cuts(self) -> list[CutPlace]:
        """Return where the document, or each of its copies, is cut."""
        return [
            CutPlace(
                name=document.name,
                line=document.text.count("\n", 0, at) + 1,
                byte=len(document.text[:at].encode()),
                num_bytes=len(document.text.encode()),
            )
            for document in self._items
            if isinstance(document, Document)
            for at in [cut_text(document.text, 1 - self.val_fraction)]
        ]

    @cached_property
    def _items(self) -> list[Document | Skipped]:
        return list(self.source.documents())

    def _pieces(self, shard: _Piece) -> list[Document | Skipped]:
        pieces: list[Document | Skipped] = []
        for item in self._items:
            if isinstance(item, Skipped):
                if shard.number == 0:
                    pieces.append(item)
                continue
            end = cut_text(item.text, 1 - self.val_fraction)
            if shard.held_out:
                begin, end = end, len(item.text)
            else:
                number = max(1, min(self.num_pieces, end // _SMALLEST_PIECE))
                rest = item.text[:end]
                begin, end = (
                    end if part >= number else cut_text(rest, part / number, 0.5 / number)
                    for part in (shard.number, shard.number + 1)
                )
            if begin < end:
                pieces.append(item._replace(text=item.text[begin:end]))
        return pieces


def cut_documents(
    sources: Iterable[Source], *, val_fraction: float, num_pieces: int = 1
) -> list[CutDocument]:
    """Return sources of one document among them, cut."""
    return [
        CutDocument(
            source=source,
            name=source.name,
            weight=source.weight,
            val_fraction=val_fraction,
            num_pieces=num_pieces,
        )
        for source in sources
    ]


def cut_text(text: str, fraction: float, near: float | None = None) -> int:
    r"""Return where to cut a text, about ``fraction`` of it in: behind a line, else a word.

    Args:
        text: To be cut.
        fraction: How much of it is to come before; 0 cuts nothing off.
        near: The share of it in which a line end or space is near enough; by default half of what
            comes behind, and for a line end 4,096 characters too.

    Example:
        >>> text = "one two\nthree\n"
        >>> text[cut_text(text, 0.6) :]
        'three\n'
    """
    target = min(round(len(text) * fraction), len(text) - 1)
    if target <= 0:
        return 0
    share = round(len(text) * (near or (1 - fraction) / 2))
    of_lines = share if near is not None else max(_NEAR, share)
    for sign, reach in (("\n", of_lines), (" ", share)):
        before = text.rfind(sign, max(0, target - reach - 1), target) + 1
        behind = text.find(sign, target - 1, target + reach) + 1
        places = [at for at in (before, behind) if 0 < at < len(text) and abs(at - target) <= reach]
        if places:
            return min(places, key=lambda at: abs(at - target))
    return target


def is_one_document(digests: Iterable[bytes]) -> bool:
    """Return whether there is one document alone, or copies of one; stops at the second."""
    first = None
    for digest in digests:
        if first is not None and digest != first:
            return False
        first = digest
    return first is not None
