"""Batches of a stream: rows tokenized on the fly, the same for any number of ranks and workers.

Row i of the stream is the next row of lane i mod L. A rank takes its slice of every batch and a
worker its slice of the rank's; since L is a multiple of the rows of a batch, each lane is read by
one process, and nothing has to be agreed on but where each lane is.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from math import gcd
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pile_lightning.batch import TokenBatch
from pile_lightning.data.assemble import assemble
from pile_lightning.data.lanes import Cursor, Lane, Row, Tokens
from pile_lightning.data.loader_workers import load
from pile_lightning.data.mixture import Mixture
from pile_lightning.data.share import Share
from pile_lightning.data.short_rows import ShortStage

__all__ = ["Cursors", "StreamBatches", "StreamLoader"]

Ints = npt.NDArray[np.int64]

_BATCHES_AT_ONCE = 64
_NO_TOKENS: Tokens = np.empty(0, np.uint8)


class _Piece(NamedTuple):
    """Rows of one worker for one batch, and what they did to the cursors."""

    batch: TokenBatch
    lanes: Ints
    domains: Ints
    cursors: Ints
    num_tokens: int
    """Positions that hold text."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamBatches(IterableDataset[_Piece]):
    """One rank's rows of every batch; of W loader workers each yields a W-th of them."""

    open_lane: Callable[[int, int, Cursor], Lane[Any]]
    """Opens lane (domain, lane) at a cursor."""
    mixture: Mixture
    """Which domain each row of the stream is of."""
    num_lanes: int
    seq_len: int
    start_id: int
    token_num_bytes: Ints | None
    """UTF-8 bytes behind each id; None counts a document's where its last token is predicted."""
    share: Share
    first_row: int = 0
    """Row of the stream that the first batch of all ranks begins with."""
    stage: ShortStage = ShortStage()
    """Which batches have rows that are cut into short ones."""
    cursors: Ints | None = None
    """Where the lanes are before it (lanes, domains, 5); None: at their beginnings."""

    def __iter__(self) -> Iterator[_Piece]:
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        mine = slice(
            worker * self.share.num_rows // num_workers,
            (worker + 1) * self.share.num_rows // num_workers,
        )
        lanes: dict[tuple[int, int], Lane[Any]] = {}
        for block in count():
            numbers = block * _BATCHES_AT_ONCE + np.arange(_BATCHES_AT_ONCE)
            rows = self.first_row + self.share.positions(numbers)[:, mine]
            domains = self.mixture.at(rows.ravel())[0].reshape(rows.shape)
            is_short = self.stage.is_short(numbers, start=self.first_row, share=self.share)
            for lane, domain, short in zip(rows % self.num_lanes, domains, is_short, strict=True):
                yield self._piece(lanes, lane, domain, self.stage.num_parts if short else 1)

    def _piece(
        self, lanes: dict[tuple[int, int], Lane[Any]], lane: Ints, domain: Ints, num_parts: int
    ) -> _Piece:
        # the parts of a row follow one another, as in their lane
        lane, domain = np.repeat(lane, num_parts), np.repeat(domain, num_parts)
        seq_len = self.seq_len // num_parts
        rows: list[Row | None] = []
        cursors = np.empty((len(lane), len(Cursor._fields)), np.int64)
        joints: list[tuple[int, int]] = []
        for i, key in enumerate(zip(domain.tolist(), lane.tolist(), strict=True)):
            if key not in lanes:
                lanes[key] = self.open_lane(*key, self._cursor(*key))
            row: Row | None = lanes[key].next_row(seq_len)
            rows.append(row)
            if row is not None and row.joints:
                joints += [(i, place) for place in row.joints]
            cursors[i] = lanes[key].cursor
        tokens = _stacked([row.tokens if row else _NO_TOKENS for row in rows], seq_len + 1)
        length = np.array([len(row.tokens) - 1 if row else 0 for row in rows])
        num_bytes = np.array([row.num_bytes if row else 0 for row in rows])
        batch = assemble(
            tokens,
            domain=domain,
            length=length,
            start_id=self.start_id,
            joints=tuple(np.array(joints).T) if joints else None,
            token_num_bytes=self.token_num_bytes,
            num_bytes=num_bytes,
        )
        return _Piece(batch, lane, domain, cursors, int(length.sum()))

    def _cursor(self, domain: int, lane: int) -> Cursor:
        return Cursor() if self.cursors is None else Cursor(*self.cursors[lane, domain].tolist())


class Cursors:
    """Where every lane of this rank is, as of any batch that was handed out lately.

    Training runs behind the loader, which fetches ahead; so what a batch did to the cursors is
    kept until training is done with it.

    Args:
        num_lanes: Lanes of each domain.
        num_domains: Domains.
    """

    def __init__(self, *, num_lanes: int, num_domains: int) -> None:
        self.settled: Ints = np.zeros((num_lanes, num_domains, len(Cursor._fields)), np.int64)
        self._pending: deque[tuple[int, Ints, Ints, Ints]] = deque()
        self._handed_out = 0

    def restart(self, cursors: Ints) -> None:
        """Begin a pass over the stream at ``cursors``."""
        self.settled = cursors.copy()
        self._pending.clear()
        self._handed_out = 0

    def hand_out(self, pieces: list[_Piece]) -> None:
        """Note the next batch, but keep no more of it than the cursors."""
        self._pending.extend((self._handed_out, *piece[1:4]) for piece in pieces)
        self._handed_out += 1

    def after(self, num_batches: int) -> Ints:
        """Return the cursors after so many batches of this pass (lanes, domains, 5)."""
        while self._pending and self._pending[0][0] < num_batches:
            _, lanes, domains, cursors = self._pending.popleft()
            # one by one: a batch may hold several rows of a lane, and the last one counts
            for lane, domain, cursor in zip(lanes.tolist(), domains.tolist(), cursors, strict=True):
                self.settled[lane, domain] = cursor
        return self.settled


class StreamLoader:
    """Loads the batches of a stream, in this process or in workers.

    Args:
        batches: What to load.
        start: Row of the stream and cursors to begin a pass at.
        cursors: Is told of every batch.
        num_workers: Loader processes; as many are used as divide the rows of a batch evenly.
        pin_memory: Whether batches go to a GPU.
        num_done: Tells how many batches of this pass training is done with; None where nobody will
            ask for the cursors, which are not kept then.
        any_alive: Says whether any rank's flag is set, asked by all ranks for every batch of a
            stream that ends; None for one that does not.
        on_end: Is called when the stream has ended.
    """

    def __init__(
        self,
        batches: StreamBatches,
        *,
        start: Callable[[], tuple[int, Ints]],
        cursors: Cursors,
        num_workers: int = 0,
        pin_memory: bool = False,
        num_done: Callable[[], int] | None = None,
        any_alive: Callable[[bool], bool] | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.batches, self.start, self.cursors = batches, start, cursors
        self.num_workers = num_workers and gcd(num_workers, batches.share.num_rows)
        self.pin_memory = pin_memory
        self.num_tokens = self.num_positions = 0
        """Positions handed out in this pass, those that hold text and all."""
        self.num_done, self.any_alive, self.on_end = num_done, any_alive, on_end

    def __iter__(self) -> Iterator[TokenBatch]:
        first_row, cursors = self.start()
        self.cursors.restart(cursors)
        batches = replace(self.batches, first_row=first_row, cursors=cursors)
        pieces = self._pieces(batches)
        self.num_tokens = self.num_positions = 0
        per_batch = max(1, self.num_workers)
        while True:
            group = [next(pieces) for _ in range(per_batch)]
            if self.any_alive and not self.any_alive(any(piece.num_tokens for piece in group)):
                self.on_end()
                return
            if self.num_done is not None:
                self.cursors.after(self.num_done())
                self.cursors.hand_out(group)
            self.num_tokens += sum(piece.num_tokens for piece in group)
            self.num_positions += sum(piece.batch["input_ids"].numel() for piece in group)
            yield _join([piece.batch for piece in group])

    def _pieces(self, batches: StreamBatches) -> Iterator[_Piece]:
        if not (self.num_workers or self.pin_memory):
            yield from batches
            return
        yield from load(batches, num_workers=self.num_workers, pin_memory=self.pin_memory)

    def state_dict(self) -> dict[str, int]:
        """Return nothing: the data module keeps the position (Lightning warns of none at all)."""
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Do nothing; see ``state_dict``."""


def _stacked(rows: list[Tokens], length: int) -> Tokens:
    """Return rows of up to ``length`` tokens as one array (rows, length), with zeros behind."""
    if all(len(row) == length for row in rows):
        return np.stack(rows)
    stacked = np.zeros((len(rows), length), np.result_type(*rows))
    for row, tokens in zip(stacked, rows, strict=True):
        row[: len(tokens)] = tokens
    return stacked


def _join(parts: list[TokenBatch]) -> TokenBatch:
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(part.items() for part in parts), strict=True)
    return cast(TokenBatch, {c[0][0]: torch.cat([value for _, value in c]) for c in columns})
