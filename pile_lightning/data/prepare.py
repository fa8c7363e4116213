"""From sources to a finished store: split by content, train the tokenizer, tokenize, write.

Memory holds one batch of documents, never the corpus. A store is written beside its place, under a
lock, and moved there when it is whole: a kill in the middle leaves nothing that looks like a store.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from filelock import FileLock, Timeout
from tqdm import tqdm

from pile_lightning.data.byte_level import train_bpe
from pile_lightning.data.policy import BadInput, warn_of_bad_input
from pile_lightning.data.source import Source
from pile_lightning.data.split import content_hash, held_out_bound, is_held_out
from pile_lightning.data.store import StreamCounts, TokenStore, TokenStoreWriter
from pile_lightning.data.tokenizer_specs import bpe_vocab_size, load_tokenizer
from pile_lightning.data.tokenizers import START_TOKEN, FastTokenizer, Tokenizer

__all__ = ["Preparation"]

_BATCH_BYTES = 4 << 20
_TRAINING_BYTES = 100 << 20


class _Text(NamedTuple):
    domain: int
    text: str
    num_bytes: int
    digest: bytes


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a store is made of, and where it belongs; ``run`` makes it unless it is there.

    Example:
        >>> import tempfile
        >>> from pile_lightning.data import FileSource
        >>> folder = Path(tempfile.mkdtemp())
        >>> for i in range(40):
        ...     _ = (folder / f"{i}.txt").write_text(f"number {i}")
        >>> preparation = Preparation(
        ...     sources=[FileSource(folder)],
        ...     tokenizer="byte",
        ...     val_fraction=0.1,
        ...     path=folder / "store",
        ... )
        >>> store = preparation.run(quiet=True)
        >>> store.counts("train").documents + store.counts("val").documents
        40
    """

    sources: Sequence[Source]
    """One for each domain."""
    tokenizer: str
    """Which tokenizer, see ``TextData``."""
    val_fraction: float
    """Share of the documents to hold out."""
    path: Path
    """Folder of the finished store."""
    max_bad_fraction: float = 0.001
    """Share of a source's records that may be bad, see ``BadInput``."""

    def run(self, *, quiet: bool = False) -> TokenStore:
        """Return the store, after making it where it does not exist."""
        if not TokenStore.exists(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path, quiet):
                if not TokenStore.exists(self.path):
                    self._build(quiet)
        return TokenStore(self.path)

    def _build(self, quiet: bool) -> None:
        began = time.monotonic()
        partial = self.path.with_name(f"{self.path.name}.partial")
        for leftover in (partial, self.path):  # of a killed builder, or without its manifest
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir()
        bound = held_out_bound(
            (text.digest for text in self._read(self._count_bad())), self.val_fraction
        )
        tokenizer = self._make_tokenizer(bound, quiet)
        domains = [source.name for source in self.sources]
        bad = self._count_bad()
        with closing(TokenStoreWriter(partial, domains, tokenizer)) as writer:
            self._tokenize(writer, tokenizer, bound, bad, quiet)
            train, val = writer.counts("train"), writer.counts("val")
            self._check(train, val)
            skipped = sum((source.reasons for source in bad), Counter())
            writer.finish(fingerprint={"val_fraction": self.val_fraction}, skipped=dict(skipped))
        os.replace(partial, self.path)
        warn_of_bad_input(bad)
        if not quiet:
            print(_summary(train, val, time.monotonic() - began, self.path), flush=True)

    def _count_bad(self) -> list[BadInput]:
        return [
            BadInput(source=source.name, max_bad_fraction=self.max_bad_fraction)
            for source in self.sources
        ]

    def _read(self, bad: list[BadInput]) -> Iterator[_Text]:
        for domain, source in enumerate(self.sources):
            for document in bad[domain].documents(source.documents()):
                encoded = document.text.encode()
                yield _Text(domain, document.text, len(encoded), content_hash(encoded))

    def _make_tokenizer(self, bound: float, quiet: bool) -> Tokenizer:
        vocab_size = bpe_vocab_size(self.tokenizer)
        if vocab_size is None:
            return load_tokenizer(self.tokenizer)
        texts = (
            text for text in self._read(self._count_bad()) if not is_held_out(text.digest, bound)
        )
        backend = train_bpe(
            _watched(texts, "training the tokenizer", self._num_bytes(_TRAINING_BYTES), quiet),
            vocab_size=vocab_size,
            start_token=START_TOKEN,
            max_bytes=_TRAINING_BYTES,
        )
        return FastTokenizer(backend)

    def _tokenize(
        self,
        writer: TokenStoreWriter,
        tokenizer: Tokenizer,
        bound: float,
        bad: list[BadInput],
        quiet: bool,
    ) -> None:
        batches = _batches(self._read(bad))
        with _bar("tokenizing", self._num_bytes(), quiet) as bar:
            for batch in batches:
                encoded = tokenizer.encode_batch([text.text for text in batch])
                for text, ids in zip(batch, encoded, strict=True):
                    split = "val" if is_held_out(text.digest, bound) else "train"
                    writer.add(
                        split, text.domain, ids, num_bytes=text.num_bytes, digest=text.digest
                    )
                bar.update(sum(text.num_bytes for text in batch))

    def _num_bytes(self, limit: int | None = None) -> int | None:
        sizes = [source.num_bytes() for source in self.sources]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return None
        return sum(known) if limit is None else min(limit, sum(known))

    def _check(self, train: StreamCounts, val: StreamCounts) -> None:
        where = ", ".join(repr(source.name) for source in self.sources)
        if not train.documents + val.documents:
            raise ValueError(
                f"the sources ({where}) hold no text; give documents that are not empty"
            )
        if not train.documents:
            raise ValueError(
                f"val_fraction={self.val_fraction} holds out every one of the {val.documents} "
                f"documents of {where} (by the hash of their content), and none is left to train "
                f"on; give more documents, or set val_fraction=0"
            )
        if self.val_fraction and not val.documents:
            raise ValueError(
                f"val_fraction={self.val_fraction} of one document ({where}) cannot be held out: "
                f"documents are held out whole; split the file into several, or set val_fraction=0"
            )


def _batches(texts: Iterator[_Text]) -> Iterator[list[_Text]]:
    batch: list[_Text] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += text.num_bytes
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _watched(texts: Iterator[_Text], doing: str, total: int | None, quiet: bool) -> Iterator[str]:
    with _bar(doing, total, quiet) as bar:
        for text in texts:
            bar.update(text.num_bytes)
            yield text.text


def _bar(doing: str, total: int | None, quiet: bool) -> "tqdm[NoReturn]":
    # disable=None: shown on a terminal only; delay: not for what takes a moment
    return tqdm(
        desc=doing, total=total, unit="B", unit_scale=True, delay=1, disable=True if quiet else None
    )


def _summary(train: StreamCounts, val: StreamCounts, seconds: float, path: Path) -> str:
    both = train + val
    text_tokens = both.tokens - both.documents
    return (
        f"prepared {both.documents:,} documents, {both.num_bytes / 1e6:,.1f} MB as "
        f"{both.tokens / 1e6:,.2f} M tokens ({both.num_bytes / max(1, text_tokens):.2f} bytes a "
        f"token; {val.documents:,} documents, {val.num_bytes / 1e6:,.2f} MB held out) in "
        f"{seconds:.1f} s: {path}"
    )


@contextmanager
def _locked(path: Path, quiet: bool) -> Iterator[None]:
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not quiet:
            print(f"another process prepares {path}; waiting for it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
