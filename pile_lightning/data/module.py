"""What data modules of text share: settings, tokenizer, what is held out, and the position."""

import hashlib
import inspect
import json
import os
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from lightning import LightningDataModule

from pile_lightning.batch import TokenBatch, without_needless_mask
from pile_lightning.data.checks import check_fingerprint, check_settings, check_trainer, share
from pile_lightning.data.cursor import RowCursor
from pile_lightning.data.loader import Batches, FiniteBatchLoader, Once
from pile_lightning.data.mixing import MixtureConfig
from pile_lightning.data.override import arguments_of_init, fingerprint_of_class, override_source
from pile_lightning.data.packing import ScoringRows
from pile_lightning.data.prepare import Preparation
from pile_lightning.data.readers import MAX_RECORD_BYTES, Document, Skipped
from pile_lightning.data.short_rows import ShortRowsConfig, ShortStage
from pile_lightning.data.sources import Source, as_sources
from pile_lightning.data.store import FORMAT, TokenStore
from pile_lightning.data.tokenizer_specs import bpe_vocab_size, load_tokenizer
from pile_lightning.data.tokenizers import Tokenizer
from pile_lightning.data.vocabulary import vocabulary_difference

__all__ = ["TextModule"]


class TextModule(LightningDataModule):
    """What training on text has in common, whether it is prepared or streamed.

    Sub-classes give ``train_dataloader`` and ``fingerprint``. What is held out is prepared, scored
    and described here; so are the settings, the tokenizer and the position in the stream of rows.

    Args:
        sources: ``"stdlib"`` (the running Python's standard library), a file, folder, glob or URL
            of text, a ``Source``, or a list of these; each is a domain, unless its records name
            their own.
        tokenizer: ``"byte"``, ``"bpe:4096"`` (trained on the training documents), the path of a
            ``tokenizer.json``, or the name of a Hugging Face tokenizer.
        seq_len: Positions of a row.
        packing: ``"split"`` cuts the stream of documents where a row is full; ``"best_fit"`` splits
            no document that fits a row, and pads what is left of rows.
        short_rows: Cuts rows into shorter ones for a stage at the start of training; ``packing``
            has to be ``"split"``.
        batch_size: Rows of one optimizer step, over all devices and accumulated batches.
        val_batch_size: Rows of one validation batch, over all devices; by default as many as one
            training batch has before accumulation.
        val_stride: New positions in a validation row that starts inside a document; the rest is
            context. By default ``seq_len``: no context, each position is computed once.
        val_fraction: Share of the documents to hold out.
        mixture: Shares of the domains in training; by default each has what it has by nature.
        max_bad_fraction: Share of a source's records that may be unreadable, beside the first ten;
            they are left out and counted. 0 stops at the first.
        max_record_bytes: A larger line, row or document is bad, and is not held in memory.
        seed: Of the order of rows.
        num_workers: Loader processes; reading prepared rows is faster without.
        num_proc: Processes that prepare; by default one for each core.
        cache_dir: Where stores lie; by default ``$PILE_CACHE``, else ``~/.cache/pile_lightning``.

    Raises:
        ValueError: For a setting out of its range, with what to change.
    """

    def __init__(
        self,
        sources: str | Source | list[str | Source] = "stdlib",
        *,
        tokenizer: str = "bpe:4096",
        seq_len: int = 256,
        packing: Literal["split", "best_fit"] = "split",
        short_rows: ShortRowsConfig | None = None,
        batch_size: int = 8,
        val_batch_size: int | None = None,
        val_stride: int | None = None,
        val_fraction: float = 0.05,
        mixture: MixtureConfig | None = None,
        max_bad_fraction: float = 0.001,
        max_record_bytes: int = MAX_RECORD_BYTES,
        seed: int = 0,
        num_workers: int = 0,
        num_proc: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        self._init_arguments = arguments_of_init(self)
        self.sources = tuple(s.limited(max_record_bytes) for s in as_sources(sources))
        self.tokenizer_spec = tokenizer
        self.seq_len = seq_len
        self.packing = packing
        self.short_rows = short_rows
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.val_stride = seq_len if val_stride is None else val_stride
        self.val_fraction = val_fraction
        self.mixture_config = mixture
        self.max_bad_fraction = max_bad_fraction
        self.max_record_bytes = max_record_bytes
        self.seed = seed
        self.num_workers = num_workers
        self.num_proc = num_proc
        cache = Path(cache_dir or os.environ.get("PILE_CACHE") or "~/.cache/pile_lightning")
        self.cache_dir = cache.expanduser()
        check_settings(self)
        self._cursor = RowCursor()
        self._loaded_fingerprint: dict[str, Any] | None = None

    @classmethod
    def load_from_checkpoint(cls, *given: Any, **more: Any) -> NoReturn:
        """Raise a TypeError: a checkpoint has only how far data were read, not what they are."""
        raise TypeError(
            f"{cls.__name__} is not in a checkpoint, which has only how far it was read; make it "
            f"with its settings, and give the checkpoint to trainer.fit(..., ckpt_path=...)"
        )

    def documents(self) -> Iterator[Document | Skipped]:
        """Yield all documents, the same in the same order each time; override to bring your own."""
        for source in self.sources:
            yield from source.documents()

    def data_fingerprint(self) -> str:
        """Return what changes when the documents do, so that they are prepared again.

        For documents of your own that is, by default, the name and source of the class, its
        ``sources`` and the arguments that it adds.
        """
        if self._brings_documents:
            settings = set(inspect.signature(TextModule).parameters) - {"sources"}
            added = {k: v for k, v in self._init_arguments.items() if k not in settings}
            return fingerprint_of_class(type(self), added)
        return json.dumps([[source.name, source.fingerprint()] for source in self.sources])

    @property
    def domains(self) -> tuple[str, ...]:
        """What ``domain`` of a batch counts in, once prepared: sources, or what documents name."""
        return self.store.domains

    @property
    def train_domains(self) -> tuple[str, ...]:
        """What ``domain`` of a training batch counts in."""
        return self.domains

    @cached_property
    def vocab_size(self) -> int:
        """Number of token ids, known before anything is prepared."""
        return bpe_vocab_size(self.tokenizer_spec) or self._given_tokenizer.vocab_size

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; one that is trained on the data is there after ``prepare_data``."""
        trained = bpe_vocab_size(self.tokenizer_spec) is not None
        return self.store.tokenizer if trained else self._given_tokenizer

    def vocabulary_difference(self, other: str) -> str | None:
        """Say an id that another tokenizer means otherwise by; None where there is none.

        Args:
            other: What ``tokenizer`` may be, but for one to train.

        Raises:
            FileNotFoundError: For a path that does not exist.
            ValueError: For a name that neither this machine nor Hugging Face knows.
        """
        return vocabulary_difference(self.tokenizer, load_tokenizer(other))

    @cached_property
    def store_path(self) -> Path:
        """Where the prepared store lies: a folder named by what it is made of."""
        trained = bpe_vocab_size(self.tokenizer_spec) is not None
        tokenizer = self.tokenizer_spec if trained else self._given_tokenizer.fingerprint()
        names = [source.name for source in self._sources]
        made_of = [FORMAT, self.data_fingerprint(), names, tokenizer, *self._store_settings()]
        key = json.dumps(made_of)
        return self.cache_dir / hashlib.sha256(key.encode()).hexdigest()[:20]

    def _store_settings(self) -> list[Any]:
        limits = (source.record_limit for source in self._sources)
        return [self.val_fraction, self.max_bad_fraction, *limits]

    @cached_property
    def store(self) -> TokenStore:
        """The prepared store."""
        return TokenStore(self.store_path)

    def prepare_data(self) -> None:
        """Split, train the tokenizer, tokenize and store, unless that is done."""
        self._preparation().run()

    def _preparation(self) -> Preparation:
        return Preparation(
            sources=self._sources,
            tokenizer=self.tokenizer_spec,
            val_fraction=self.val_fraction,
            path=self.store_path,
            max_bad_fraction=self.max_bad_fraction,
            num_proc=self.num_proc,
        )

    def setup(self, stage: str) -> None:
        """Refuse settings of the trainer that do not fit."""
        if stage == "fit" and self.trainer is not None:
            check_trainer(self.trainer)
            share(self.trainer, "batch_size", self.batch_size, accumulated=True)

    def on_before_batch_transfer(self, batch: TokenBatch, dataloader_idx: int) -> TokenBatch:
        """Take the mask off rows of one document each."""
        return without_needless_mask(batch)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch to the device; it is made on the CPU, where nothing is to be done."""
        on_cpu = device.type == "cpu"  # a tenth of a millisecond less than asking every tensor
        return batch if on_cpu else super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _resume(self) -> None:
        """Check that a checkpoint's rows are this run's, and go on counting them."""
        check_settings(self)  # a tuner or a user may have set another batch_size
        if self._loaded_fingerprint is not None:
            check_fingerprint(self._loaded_fingerprint, self.fingerprint())
            self._loaded_fingerprint = None
        self._cursor.begin(self.trainer, self.batch_size)

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return what decides which tokens row i holds, in plain data."""

    @cached_property
    def scoring_rows(self) -> ScoringRows:
        """The rows that score every held-out token once."""
        streams = self.store.streams("val")
        return ScoringRows(streams=streams, stride=self.val_stride, **self._row_settings)

    def val_dataloader(self) -> FiniteBatchLoader | list[FiniteBatchLoader]:
        """Return the loader of the held-out rows, or no loader where nothing is held out."""
        rows = self.scoring_rows
        if not rows.num_rows:
            return []
        if self.val_batch_size is None:
            part = share(self.trainer, "batch_size", self.batch_size, accumulated=True)
        else:
            part = share(self.trainer, "val_batch_size", self.val_batch_size, accumulated=False)
        num_batches = -(-rows.num_rows // (part.num_rows * part.num_ranks))
        return FiniteBatchLoader(
            Batches(rows=rows, order=Once(rows.num_rows), share=part, num_batches=num_batches),
            num_workers=self.num_workers,
            pin_memory=self._pin_memory,
        )

    def test_dataloader(self) -> FiniteBatchLoader | list[FiniteBatchLoader]:
        """Return the held-out rows."""
        return self.val_dataloader()

    def predict_dataloader(self) -> FiniteBatchLoader | list[FiniteBatchLoader]:
        """Return the held-out rows."""
        return self.val_dataloader()

    def held_out_texts(self) -> Iterator[str]:
        """Yield the held-out documents; a tokenizer that normalises gives them as it sees them."""
        for stream in self.store.streams("val"):
            for ids in stream.documents():
                yield self.tokenizer.decode(ids)

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the stream of rows and what the stream is made of."""
        return self._cursor.state_dict() | {"fingerprint": self.fingerprint()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state at the next ``train_dataloader``, if its data are the same."""
        self._loaded_fingerprint = state_dict["fingerprint"]
        self._cursor.load_state_dict(state_dict)

    @property
    def _brings_documents(self) -> bool:
        return type(self).documents is not TextModule.documents

    @property
    def _sources(self) -> tuple[Source, ...]:
        return (override_source(self),) if self._brings_documents else self.sources

    @cached_property
    def _given_tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.tokenizer_spec)

    @property
    def _row_settings(self) -> dict[str, Any]:
        tokenizer = self.tokenizer
        return {
            "seq_len": self.seq_len,
            "start_id": tokenizer.start_id,
            "token_num_bytes": tokenizer.token_num_bytes if self.store.exact_bytes else None,
        }

    @property
    def _short_stage(self) -> ShortStage:
        if self.short_rows is None:
            return ShortStage()
        return self.short_rows.stage(seq_len=self.seq_len, batch_size=self.batch_size)

    @property
    def _pin_memory(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
