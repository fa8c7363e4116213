"""Lanes: deterministic sequential readers of a source, each with a cursor that can be put back.

A source's shards are dealt to the lanes anew in every epoch. A lane reads its documents in windows,
encodes and shuffles each window as a whole, and cuts the tokens into rows. Its cursor names the
window by where it begins, and the place in it, so that going on costs reading one window again.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pile_lightning.data.order import shuffled
from pile_lightning.data.policy import BadInput
from pile_lightning.data.readers import Document, Skipped
from pile_lightning.data.sources import Shard, Source
from pile_lightning.data.split import content_hash, is_held_out

__all__ = ["Cursor", "Deal", "Encode", "Lane", "LaneSource", "Row", "Unit", "source_seed"]

Tokens = npt.NDArray[Any]
Encode = Callable[[list[str]], list[Tokens]]


_RECORDS_BETWEEN_JUDGEMENTS = 1000
_UNITS_A_LANE = 4


class Unit(NamedTuple):
    """What a lane reads in one go: a shard, or where lanes outnumber shards every n-th record."""

    shard: int
    """Index of the shard in its source."""
    stripe: int
    """The unit has the records of the shard whose number leaves this remainder ..."""
    num_stripes: int
    """... when divided by this."""


class Cursor(NamedTuple):
    """Where a lane is: all numbers, so that all cursors together are one small array."""

    epoch: int = 0
    unit: int = 0
    """Index, among the lane's units of the epoch, of the one in which the window begins."""
    record: int = 0
    """Record of that unit's shard at which the window begins."""
    document: int = 0
    """Documents of the window, in its shuffled order, that are behind the cursor."""
    token: int = 0
    """Tokens of the next document that are behind the cursor."""


class Row(NamedTuple):
    """A window of a lane's stream of tokens."""

    tokens: Tokens
    """Tokens and the one behind them (length + 1,), the start of a document among them."""
    num_bytes: int
    """UTF-8 bytes of the documents whose last token is predicted in the row."""
    cursor: Cursor
    """Where the lane is after the row."""


class _Record(NamedTuple):
    unit: int
    number: int
    text: str
    num_bytes: int


class _Encoded(NamedTuple):
    tokens: Tokens
    num_bytes: int


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


@dataclass(frozen=True, kw_only=True)
class LaneSource:
    """What all lanes of a source have in common."""

    source: Source
    deal: Deal
    start_id: int
    """The token that opens a document."""
    held_out_below: float
    """Bound of the content hash below which a document is held out."""
    window_bytes: int
    """A window is full when it holds so much text."""
    shuffle: bool = True
    """Whether the documents of a window are shuffled."""
    once: bool = False
    """End after one epoch, with a last row that may be shorter."""


class Lane:
    """One lane of one source: rows of tokens, forever or for one epoch.

    Args:
        common: What it shares with the other lanes of the source.
        lane: Its number.
        encode: Texts to ids, without the start token.
        cursor: Where to begin.
        bad: Counts what is read and stops where too much of it is bad.
    """

    def __init__(
        self,
        common: LaneSource,
        *,
        lane: int,
        encode: Encode,
        cursor: Cursor = Cursor(),  # noqa: B008 - immutable
        bad: BadInput | None = None,
    ) -> None:
        self.common, self.lane, self.encode = common, lane, encode
        self.bad = bad or BadInput(source=common.source.name)
        self.cursor = cursor
        """Where the lane is: at its beginning, or after the last row that it gave."""
        self._window: list[_Encoded] = []
        self._next_window = cursor._replace(document=0, token=0)
        self._records: Iterator[_Record] = iter(())
        self._ahead: _Record | None = None
        self._reading = False
        self._found = True  # whether the epoch had a document

    def next_row(self, length: int) -> Row | None:
        """Return the next row of ``length`` tokens and the one behind, or None at the end."""
        parts: list[Tokens] = []
        missing, num_bytes, behind = length, 0, self.common.start_id
        while missing and (document := self._document()) is not None:
            tokens, place = document.tokens, self.cursor.token
            part = tokens[place : place + missing]
            parts.append(part)
            missing -= len(part)
            end = place + len(part)
            if place < len(tokens) - 1 <= end:  # the last token is predicted from the one before
                num_bytes += document.num_bytes
            if end == len(tokens):
                # whichever document comes next, this is how it opens
                behind = self.common.start_id
                self.cursor = self.cursor._replace(document=self.cursor.document + 1, token=0)
            else:
                behind = int(tokens[end])
                self.cursor = self.cursor._replace(token=end)
        if not parts:
            return None
        tokens = np.concatenate([*parts, np.array([behind], parts[0].dtype)])
        return Row(tokens, num_bytes, self.cursor)

    def _document(self) -> _Encoded | None:
        """Return the document that the cursor is in, or None at the end of a lane that ends."""
        while not self._reading or self.cursor.document >= len(self._window):
            if self._reading:
                if self._next_window.epoch > self.cursor.epoch:
                    if self.common.once:
                        return None
                    self._check_found()
                self.cursor = self._next_window
            self._read_window()
        return self._window[self.cursor.document]

    def _check_found(self) -> None:
        if not self._found:
            raise ValueError(
                f"lane {self.lane} of {self.common.deal.num_lanes} finds no document to train on "
                f"in source {self.common.source.name!r}, which has too few for so many lanes; set "
                f"num_lanes lower, or prepare the text (TextData) instead of streaming it"
            )
        self._found = False

    def _read_window(self) -> None:
        """Read the window in which the cursor is, and find where the next one begins."""
        begin = self._next_window
        if not self._reading or begin.record == begin.unit == 0:
            self._records, self._ahead = self._read_from(begin), None
            self._reading = True
        texts: list[str] = []
        sizes: list[int] = []
        size = 0
        self._next_window = Cursor(epoch=begin.epoch + 1)
        while (record := self._ahead or next(self._records, None)) is not None:
            self._ahead = None
            if size >= self.common.window_bytes:
                self._ahead = record
                self._next_window = Cursor(begin.epoch, record.unit, record.number)
                break
            if record.num_bytes:
                texts.append(record.text)
                sizes.append(record.num_bytes)
                size += record.num_bytes
        window = [
            _Encoded(np.concatenate([np.array([self.common.start_id], ids.dtype), ids]), num_bytes)
            for ids, num_bytes in zip(self.encode(texts), sizes, strict=True)
        ]
        if self.common.shuffle:
            key = self.common.deal.seed, self.lane, begin.epoch, begin.unit, begin.record
            window = [window[i] for i in shuffled(len(window), *key)]
        self._window = window
        self._found = self._found or bool(window)

    def _read_from(self, begin: Cursor) -> Iterator[_Record]:
        """Yield the lane's records of an epoch from a cursor on; those left out have no bytes."""
        units = self.common.deal.units(begin.epoch)[self.lane]
        for index in range(begin.unit, len(units)):
            unit = units[index]
            start = begin.record if index == begin.unit else 0
            records = self.common.source.read(self.common.deal.shards[unit.shard], start)
            for number, record in enumerate(records, start):
                if number % unit.num_stripes == unit.stripe:
                    yield _Record(index, number, *self._keep(record))

    def _keep(self, record: Document | Skipped) -> tuple[str, int]:
        """Return the text of a record and its bytes, none where it is not trained on."""
        document = self.bad.count(record)
        if document is None or self.bad.num_records % _RECORDS_BETWEEN_JUDGEMENTS == 0:
            self.bad.judge()
        if document is not None:
            encoded = document.text.encode()
            if not is_held_out(content_hash(encoded), self.common.held_out_below):
                return document.text, len(encoded)
        return "", 0


def source_seed(seed: int, name: str) -> int:
    """Return the seed of one source: what one source is dealt does not hang on the others."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
