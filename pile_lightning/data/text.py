"""``TextData``: text from anywhere, prepared once, as rows that a language model trains on."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pile_lightning.data.best_fit_rows import BestFitRows
from pile_lightning.data.checks import share
from pile_lightning.data.loader import Batches, BatchLoader
from pile_lightning.data.mixing import MixtureConfig
from pile_lightning.data.mixture import MixedOrder, Mixture
from pile_lightning.data.module import TextModule
from pile_lightning.data.order import RowOrder
from pile_lightning.data.packing import SplitRows, TrainingRows
from pile_lightning.data.packs import make_pack, open_pack
from pile_lightning.data.row_counter import RowCounter
from pile_lightning.data.short_rows import ShortRows
from pile_lightning.data.store import TokenStore

__all__ = ["TextData"]


class TextData(TextModule):
    """Rows of packed text from files or any other source, prepared once and resumed exactly.

    The text is split by a hash of each document's content, tokenized into a store that later runs
    reuse, and served in an order that depends on ``seed`` alone: neither the number of devices nor
    of loader workers changes what the model sees, and a resumed run goes on with the next row.

    To bring documents from elsewhere, override ``documents``, as in the example, and
    ``data_fingerprint`` where equal arguments may mean other documents.

    Settings are those of ``TextModule``.

    Example:
        >>> import tempfile
        >>> from pile_lightning.data import Document
        >>> class Sums(TextData):
        ...     def documents(self):
        ...         for i in range(100):
        ...             yield Document(f"{i} + {i} = {2 * i}", f"sum {i}")
        >>> data = Sums(tokenizer="byte", seq_len=16, cache_dir=tempfile.mkdtemp())
        >>> data.prepare_data()  # doctest: +ELLIPSIS
        prepared 100 documents, 0.0 MB as 0.00 M tokens ...
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["input_ids"].shape, data.vocab_size
        (torch.Size([8, 16]), 257)
    """

    def prepare_data(self) -> None:
        """Split, train the tokenizer, tokenize, store and pack, unless that is done."""
        super().prepare_data()
        if self.packing == "best_fit":
            make_pack(TokenStore(self.store_path), seq_len=self.seq_len)

    def setup(self, stage: str) -> None:
        """Open the store, and refuse settings that do not fit it or the trainer."""
        super().setup(stage)
        if not self.training_rows.num_rows:
            raise ValueError(
                f"the {self.store.counts('train').tokens} training tokens do not fill one row of "
                f"seq_len={self.seq_len}; give more text, or a shorter seq_len"
            )
        if stage == "fit" and self.trainer is not None and self.mixture is not None:
            self._check_length(self.mixture, self.trainer.max_steps)

    @cached_property
    def training_rows(self) -> TrainingRows:
        """The rows of an epoch."""
        settings = {"streams": self.store.streams("train"), **self._row_settings}
        if self.packing == "best_fit":
            return BestFitRows(pack=open_pack(self.store, seq_len=self.seq_len), **settings)
        return SplitRows(**settings)

    @cached_property
    def mixture(self) -> Mixture | None:
        """Which domain each row is of; None where the rows of all are one shuffled whole."""
        weights = {source.name: source.weight for source in self._sources}
        if self.mixture_config is None and not any(weights.values()):
            return None
        rows = dict(zip(self.domains, self.training_rows.rows_by_domain, strict=True))
        fill = dict(zip(self.domains, self.training_rows.fill_by_domain, strict=True))
        return (self.mixture_config or MixtureConfig()).build(
            rows,
            tokens_per_row=self.seq_len,
            source_weights=weights,
            fill=fill,
        )

    def train_dataloader(self) -> BatchLoader:
        """Return the loader of this rank, from the row that the last run stopped at."""
        self._resume()
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0
        batches = Batches(
            rows=self.training_rows,
            order=self._order(),
            share=share(self.trainer, "batch_size", self.batch_size, accumulated=True),
            short_rows=self._short_rows(),
            stage=self._short_stage,
        )
        return BatchLoader(
            batches,
            # a trainer that overfits wants the same batches in each of its epochs
            start=(lambda: 0) if overfit else (lambda: self._cursor.rows),
            num_workers=self.num_workers,
            pin_memory=self._pin_memory,
        )

    @property
    def padding(self) -> float:
        """Share of the positions of an epoch that hold no token."""
        rows = self.training_rows
        return rows.num_padding / (rows.num_rows * rows.seq_len)

    def rows_of_domains(self, num_rows: int) -> npt.NDArray[np.int64]:
        """Count the rows of each domain among the first ``num_rows`` of training (domains,)."""
        if self.mixture is not None:
            return self.mixture.counts(num_rows)
        return self._row_counter.counts(num_rows)

    def delivered(self, num_rows: int | None = None) -> dict[str, tuple[int, float | None]]:
        """Return tokens and epochs of each domain in the first rows of training.

        Args:
            num_rows: How many; by default those of the steps that are finished.
        """
        counts = self.rows_of_domains(self._cursor.rows if num_rows is None else num_rows)
        epochs = counts / np.maximum(1, self.training_rows.rows_by_domain)
        tokens = self.training_rows.tokens_of(counts)
        return dict(
            zip(self.domains, zip(tokens.tolist(), epochs.tolist(), strict=True), strict=True)
        )

    def mixture_weights(self) -> dict[str, float] | None:
        """Return the shares that training starts with; None where nothing is said about them."""
        if self.mixture is None:
            return None
        return dict(zip(self.domains, self.mixture.stages[0].shares, strict=True))

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides which tokens row i holds, in plain data."""
        fingerprint = {
            "domains": list(self.domains),
            **self.store.fingerprint,
            "seq_len": self.seq_len,
            "packing": self.packing,
            "seed": self.seed,
        }
        if self.mixture is not None:
            fingerprint["mixture"] = self.mixture.describe()
        return fingerprint

    @cached_property
    def _row_counter(self) -> RowCounter:
        return RowCounter(rows=self.training_rows, order=self._order())

    def _order(self) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
        rows = self.training_rows
        if self.mixture is None:
            return RowOrder(num_rows=rows.num_rows, seed=self.seed).row_at
        by_domain = tuple(rows.rows_by_domain.tolist())
        return MixedOrder(mixture=self.mixture, num_rows=by_domain, seed=self.seed).row_at

    def _short_rows(self) -> ShortRows | None:
        whole = self.training_rows
        if self.short_rows is None or not isinstance(whole, SplitRows):
            return None
        settings = self._row_settings | {"seq_len": self.seq_len // self.short_rows.parts}
        return ShortRows(streams=whole.streams, whole=whole, **settings)

    def _check_length(self, mixture: Mixture, max_steps: int) -> None:
        """Raise a ValueError where the domains are used up before training ends."""
        needed = max_steps * self.batch_size
        if mixture.num_rows is not None and needed > mixture.num_rows:
            raise ValueError(
                f"mixture.max_epochs leaves {mixture.num_rows} rows, and trainer.max_steps="
                f"{max_steps} of batch_size={self.batch_size} need {needed}; set max_steps to at "
                f"most {mixture.num_rows // self.batch_size}, or raise max_epochs"
            )
