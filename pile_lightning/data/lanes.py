"""Lanes: deterministic sequential readers of a source, each with a cursor that can be put back.

A source's shards are dealt to the lanes anew in every epoch. A lane reads its documents in windows,
encodes and shuffles each window as a whole, and makes rows of it (see ``lane_rows``). Its cursor
names the window by where it begins, and the place in it, so that going on costs reading one window
again.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pile_lightning.data.deal import Deal
from pile_lightning.data.order import shuffled
from pile_lightning.data.policy import BadInput
from pile_lightning.data.readers import Document, Skipped
from pile_lightning.data.sources import Source
from pile_lightning.data.split import content_hash, is_held_out

__all__ = ["Cursor", "Encode", "Encoded", "Lane", "LaneSource", "Row", "Tokens"]

Tokens = npt.NDArray[Any]
Encode = Callable[[list[str]], list[Tokens]]


_RECORDS_BETWEEN_JUDGEMENTS = 1000


class Cursor(NamedTuple):
    """Where a lane is: all numbers, so that all cursors together are one small array."""

    epoch: int = 0
    unit: int = 0
    """Index, among the lane's units of the epoch, of the one in which the window begins."""
    record: int = 0
    """Record of that unit's shard at which the window begins."""
    item: int = 0
    """Documents of the window (or rows, where it is packed as a whole), in its shuffled order, that
    are behind the cursor."""
    token: int = 0
    """Tokens of the next document that are behind the cursor."""


class Row(NamedTuple):
    """Tokens of a lane."""

    tokens: Tokens
    """Tokens and the one behind them (length + 1,), the start of a document among them."""
    num_bytes: int
    """UTF-8 bytes of the documents whose last token is predicted in the row."""
    cursor: Cursor
    """Where the lane is after the row."""
    joints: Sequence[int] = ()
    """Where in the row one document ends and another one, or the rest of one, begins."""


class _Record(NamedTuple):
    unit: int
    number: int
    text: str
    num_bytes: int


class Encoded(NamedTuple):
    """A document of a window."""

    tokens: Tokens
    """The start token and those of its text."""
    num_bytes: int
    """UTF-8 bytes of its text."""

    def bytes_ending_in(self, start: int, end: int) -> int:
        """Return its bytes, if positions from ``start`` to before ``end`` predict its last one."""
        # a document may be its start token alone, which nothing predicts
        return self.num_bytes if start < max(1, len(self.tokens) - 1) <= end else 0


Item = TypeVar("Item")


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
    max_bad_fraction: float = 0.001
    """Share of the records that may be bad, see ``BadInput``."""
    shuffle: bool = True
    """Whether the documents of a window are shuffled."""
    once: bool = False
    """End after one epoch, with a last row that may be shorter."""


class Lane(ABC, Generic[Item]):
    """One lane of one source: rows of tokens, forever or for one epoch.

    Sub-classes say of what items a window is a list, and make rows of them.

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
        self.bad = bad or BadInput(
            source=common.source.name,
            max_bad_fraction=common.max_bad_fraction,
            max_record_bytes=common.source.record_limit,
        )
        self.cursor = cursor
        """Where the lane is: at its beginning, or after the last row that it gave."""
        self._window: list[Item] = []
        self._tokens: Tokens = np.empty(0, np.uint8)  # those of the window, side by side
        self._next_window = cursor._replace(item=0, token=0)
        self._records: Iterator[_Record] = iter(())
        self._ahead: _Record | None = None
        self._reading = False
        self._found = True  # whether the epoch had a document

    @abstractmethod
    def next_row(self, length: int) -> Row | None:
        """Return the next row of up to ``length`` tokens and the one behind, or None at the end."""

    @abstractmethod
    def _arrange(self, documents: list[Encoded], key: tuple[int, ...]) -> list[Item]:
        """Return the items of a window, in an order that ``key`` decides."""

    def _item(self) -> Item | None:
        """Return the item that the cursor is in, or None at the end of a lane that ends."""
        while not self._reading or self.cursor.item >= len(self._window):
            if self._reading:
                if self._next_window.epoch > self.cursor.epoch:
                    if self.common.once:
                        return None
                    self._check_found()
                self.cursor = self._next_window
            self._read_window()
        return self._window[self.cursor.item]

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
        key = self.common.deal.seed, self.lane, begin.epoch, begin.unit, begin.record
        encoded = zip(self.encode(texts), sizes, strict=True)
        documents = self._side_by_side(self._shuffled(list(encoded), *key))
        self._window = self._arrange(documents, key)
        self._found = self._found or bool(documents)

    def _side_by_side(self, encoded: list[tuple[Tokens, int]]) -> list[Encoded]:
        """Put start tokens before ids, all in one array, so that most rows are a slice of it."""
        if not encoded:
            return []
        start = np.array([self.common.start_id], encoded[0][0].dtype)
        self._tokens = np.concatenate([part for ids, _ in encoded for part in (start, ids)])
        ends = list(accumulate(1 + len(ids) for ids, _ in encoded))
        return [
            Encoded(self._tokens[begin:end], num_bytes)
            for begin, end, (_, num_bytes) in zip([0, *ends], ends, encoded, strict=False)
        ]

    def _shuffled(self, items: list[Any], *key: int) -> list[Any]:
        if not self.common.shuffle:
            return items
        return [items[i] for i in shuffled(len(items), *key)]

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
