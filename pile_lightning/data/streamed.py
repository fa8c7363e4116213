"""``StreamedText``: text tokenized as it is trained on; only what is held out is prepared."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pile_lightning.data.checks import check_settings, share
from pile_lightning.data.cut_document import cut_documents
from pile_lightning.data.deal import Deal, pieces_for, source_seed
from pile_lightning.data.lane_rows import BestFitLane, SplitLane
from pile_lightning.data.lanes import Cursor, Encode, Lane, LaneSource
from pile_lightning.data.mixing import MixtureConfig
from pile_lightning.data.mixture import Mixture
from pile_lightning.data.module import TextModule
from pile_lightning.data.prepare import Preparation
from pile_lightning.data.sources import Source
from pile_lightning.data.streaming import Cursors, StreamBatches, StreamLoader

__all__ = ["StreamedText"]

_PIECES_A_LANE = 4


class StreamedText(TextModule):
    """Rows of packed text that is read, tokenized and packed on the fly, and resumed exactly.

    For text too large, or too new, to be prepared first. Each source is read by ``num_lanes``
    sequential readers; row i of the stream is the next row of lane i mod ``num_lanes``, whatever
    the number of devices and loader workers, and a checkpoint holds where each lane is. What is
    held out, up to ``val_bytes``, is prepared as in ``TextData``, and never trained on.

    A lane reads its share of the source once, and then again in another order: its epochs are its
    own, so that lanes with less text begin the next one sooner. Weights are those of sources, whose
    text is not told apart by the domains of its records in training; they are shares of rows, those
    with padding like others.

    Args:
        sources: As in ``TextData``.
        num_lanes: Readers of each source; a multiple of ``batch_size``. Their number is part of the
            order: it stays when devices, workers or ``batch_size`` change.
        window_bytes: Text that a lane reads ahead, encodes, shuffles and packs as one.
        shuffle: Whether shards and windows are shuffled.
        once: Stop after one epoch; the last rows of the lanes may be shorter, so no token is lost.
        val_bytes: Held-out text to score on, from the beginning of the sources.
        **settings: As in ``TextData``.

    Raises:
        ValueError: For a setting out of its range, with what to change.

    Example:
        >>> import tempfile
        >>> from pile_lightning.data import Document
        >>> class Sums(StreamedText):
        ...     def documents(self):
        ...         for i in range(1000):
        ...             yield Document(f"{i} + {i} = {2 * i}", f"sum {i}")
        >>> data = Sums(tokenizer="byte", seq_len=16, cache_dir=tempfile.mkdtemp(), num_lanes=8)
        >>> data.prepare_data()  # doctest: +ELLIPSIS
        prepared ...
        >>> next(iter(data.train_dataloader()))["input_ids"].shape
        torch.Size([8, 16])
    """

    def __init__(
        self,
        sources: str | Source | list[str | Source] = "stdlib",
        *,
        num_lanes: int = 64,
        window_bytes: int = 1 << 18,
        shuffle: bool = True,
        once: bool = False,
        val_bytes: int = 1 << 20,
        **settings: Any,
    ) -> None:
        super().__init__(sources, **settings)
        for name, value in (("window_bytes", window_bytes), ("val_bytes", val_bytes)):
            if value < 1:
                raise ValueError(f"{name}={value} holds no text; choose 1 or more")
        if not self.val_fraction:
            raise ValueError(
                "val_fraction=0 holds out nothing, and a stream is scored on what it holds out; "
                "choose a little, such as 0.001"
            )
        if self.mixture_config is not None and self.mixture_config.max_epochs is not None:
            raise ValueError(
                "mixture.max_epochs needs to know how long each domain is, which a stream does "
                "not; prepare the text (TextData), or use stages"
            )
        self.num_lanes = num_lanes
        self._check_lanes()
        self.window_bytes = window_bytes
        self.shuffle = shuffle
        self.once = once
        self.val_bytes = val_bytes
        self._lane_cursors = Cursors(num_lanes=num_lanes, num_domains=len(self._sources))
        self._loaded_cursors: npt.NDArray[np.int64] | None = None
        self._loader: StreamLoader | None = None
        self._first_row = 0
        self._micro_batch_rows = self.batch_size

    @cached_property
    def _training_sources(self) -> tuple[Source, ...]:
        """The sources as they are trained on: one document alone in pieces, for all lanes."""
        if not self._cuts:
            return self._sources
        pieces = _PIECES_A_LANE * self.num_lanes
        return tuple(
            cut_documents(self._sources, val_fraction=self.val_fraction, num_pieces=pieces)
        )

    @property
    def _cuts(self) -> list[Any]:
        return self.store.manifest["notes"].get("cuts", [])  # type: ignore[no-any-return]

    @property
    def train_domains(self) -> tuple[str, ...]:
        """Names of the sources; ``domain`` of a training batch counts in them."""
        return tuple(source.name for source in self._sources)

    @cached_property
    def mixture(self) -> Mixture:
        """Which source each row is of."""
        sizes = {source.name: source.num_bytes() for source in self._sources}
        known = {name: size for name, size in sizes.items() if size}
        # without sizes there are no natural shares: equal ones
        weighable = known if len(known) == len(sizes) else dict.fromkeys(sizes, 1)
        return (self.mixture_config or MixtureConfig()).build(
            weighable,
            tokens_per_row=self.seq_len,
            source_weights={source.name: source.weight for source in self._sources},
        )

    def delivered(self, num_rows: int | None = None) -> dict[str, tuple[int, float | None]]:
        """Return tokens of each source in the first rows of training; its epochs are not known.

        Args:
            num_rows: How many; by default those of the steps that are finished.
        """
        counts = self.mixture.counts(self._cursor.rows if num_rows is None else num_rows)
        tokens = (counts * self.seq_len).tolist()
        return {name: (count, None) for name, count in zip(self.train_domains, tokens, strict=True)}

    def mixture_weights(self) -> dict[str, float] | None:
        """Return the shares that training starts with; None where nothing is said about them."""
        if self.mixture_config is None and not any(source.weight for source in self._sources):
            return None
        return dict(zip(self.train_domains, self.mixture.stages[0].shares, strict=True))

    def train_dataloader(self) -> StreamLoader:
        """Return the loader of this rank, from where the last run stopped."""
        self._check_lanes()
        self._resume()
        trainer = self.trainer
        part = share(trainer, "batch_size", self.batch_size, accumulated=True)
        micro_batch_rows = part.num_rows * part.num_ranks
        if self._loader is not None and micro_batch_rows != self._micro_batch_rows:
            self._loaded_cursors = self._all_cursors(self._cursor.rows)  # batches are counted anew
        self._micro_batch_rows = micro_batch_rows
        tokenizer = self.tokenizer
        kind: Callable[..., Lane[Any]] = SplitLane
        if self.packing == "best_fit":
            kind = partial(BestFitLane, seq_len=self.seq_len)
        batches = StreamBatches(
            open_lane=partial(_open_lane, kind, self._lanes(), tokenizer.encode_batch),
            mixture=self.mixture,
            num_lanes=self.num_lanes,
            seq_len=self.seq_len,
            start_id=tokenizer.start_id,
            token_num_bytes=tokenizer.token_num_bytes,
            share=part,
            stage=self._short_stage,
        )
        any_alive: Callable[[bool], bool] | None = None
        if self.once and trainer is not None:
            any_alive = partial(trainer.strategy.reduce_boolean_decision, all=False)
        elif self.once:
            any_alive = bool
        self._loader = StreamLoader(
            batches,
            start=self._start,
            cursors=self._lane_cursors,
            num_workers=self.num_workers,
            pin_memory=self._pin_memory,
            num_done=None if trainer is None else self._num_done,
            any_alive=any_alive,
            on_end=self._stop,
        )
        return self._loader

    @property
    def padding(self) -> float:
        """Share of the positions that this process was given so far that hold no token."""
        if self._loader is None or not self._loader.num_positions:
            return 0.0
        return 1 - self._loader.num_tokens / self._loader.num_positions

    def _check_lanes(self) -> None:
        check_settings(self)  # a tuner or a user may have set another batch_size
        if self.num_lanes < 1 or self.num_lanes % self.batch_size:
            nearest = max(1, round(self.num_lanes / self.batch_size)) * self.batch_size
            raise ValueError(
                f"num_lanes={self.num_lanes} is not a multiple of batch_size={self.batch_size}, so "
                f"that rows of a lane would go to different devices; choose for example {nearest}"
            )

    def _preparation(self) -> Preparation:
        return replace(super()._preparation(), train=False, held_out_bytes=self.val_bytes)

    def _store_settings(self) -> list[Any]:
        return [*super()._store_settings(), "held out", self.val_bytes]

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides which tokens row i holds, in plain data."""
        return {
            "domains": list(self.train_domains),
            "content": self.store.manifest["notes"]["sources"],
            "max_record_bytes": [source.record_limit for source in self._sources],
            "tokenizer": self.tokenizer.fingerprint(),
            "held_out_below": self.store.held_out_below,
            **({"held_out_from": self._cuts} if self._cuts else {}),
            "seq_len": self.seq_len,
            "packing": self.packing,
            "seed": self.seed,
            "num_lanes": self.num_lanes,
            "window_bytes": self.window_bytes,
            "shuffle": self.shuffle,
            "mixture": self.mixture.describe(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the stream: of the rows, and of every lane of every rank."""
        state = super().state_dict()
        return state | {"cursors": torch.from_numpy(self._all_cursors(state["rows"]))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state at the next ``train_dataloader``, if its data are the same."""
        super().load_state_dict(state_dict)
        self._loaded_cursors = state_dict["cursors"].numpy()

    def _start(self) -> tuple[int, npt.NDArray[np.int64]]:
        """Return the row that a pass begins with and where the lanes are."""
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0
        # a trainer that overfits wants the same batches in each of its epochs
        rows = 0 if overfit else self._cursor.rows
        cursors = self._all_cursors(rows) if rows else np.zeros_like(self._lane_cursors.settled)
        self._loaded_cursors = None
        self._first_row = rows
        return rows, cursors

    def _num_done(self, rows: int | None = None) -> int:
        """Return how many batches of the pass are behind a row; by default, that of the cursor."""
        rows = self._cursor.rows if rows is None else rows
        return (rows - self._first_row) // self._micro_batch_rows

    def _all_cursors(self, rows: int) -> npt.NDArray[np.int64]:
        """Return every lane's cursor before a row, from the ranks that read the lanes."""
        if self._loaded_cursors is not None:
            return self._loaded_cursors
        cursors = self._lane_cursors.after(self._num_done(rows))
        if self.trainer is None or self.trainer.world_size == 1:
            return cursors.copy()
        part = share(self.trainer, "batch_size", self.batch_size, accumulated=True)
        place = (np.arange(self.num_lanes) - self._first_row) % self._micro_batch_rows
        mine = place * part.num_ranks // self._micro_batch_rows == part.rank
        own = torch.from_numpy(np.where(mine[:, None, None], cursors, 0))
        strategy = self.trainer.strategy
        merged = strategy.reduce(own.to(strategy.root_device), reduce_op="max")
        return np.asarray(merged.cpu().numpy())

    def _lanes(self) -> list[LaneSource]:
        return [
            LaneSource(
                source=source,
                deal=Deal(
                    shards=pieces_for(source, self.num_lanes),
                    num_lanes=self.num_lanes,
                    seed=source_seed(self.seed, source.name),
                    shuffle=self.shuffle,
                ),
                start_id=self.tokenizer.start_id,
                held_out_below=self.store.held_out_below,
                window_bytes=self.window_bytes,
                max_bad_fraction=self.max_bad_fraction,
                shuffle=self.shuffle,
                once=self.once,
            )
            for source in self._training_sources
        ]

    def _stop(self) -> None:
        if self.trainer is not None:
            self.trainer.should_stop = True


def _open_lane(
    kind: Callable[..., Lane[Any]],
    sources: Sequence[LaneSource],
    encode: Encode,
    domain: int,
    lane: int,
    cursor: Cursor,
) -> Lane[Any]:
    return kind(sources[domain], lane=lane, encode=encode, cursor=cursor)
