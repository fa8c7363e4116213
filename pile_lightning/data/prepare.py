"""From sources to a finished store: split by content, get the tokenizer, make parts, write.

Parts are made by several processes, each with little in memory, and stay when the rest fails: what
is prepared next, the same or with more files, goes on with them. A store is there when its manifest
is, which comes last; a lock keeps a second builder away.
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pile_lightning.data.build_lock import building
from pile_lightning.data.cache_errors import writing_to
from pile_lightning.data.cores import default_num_proc
from pile_lightning.data.cut_document import CutDocument, cut_documents, is_one_document
from pile_lightning.data.make_parts import make_parts
from pile_lightning.data.part_job import Text, texts_of
from pile_lightning.data.part_plan import PartPlan, PartSettings, group_shards
from pile_lightning.data.parts import SPLITS
from pile_lightning.data.policy import BadInput, warn_of_bad_input
from pile_lightning.data.readers import Document, Skipped
from pile_lightning.data.source import Shard, Source
from pile_lightning.data.split import held_out_bound, is_held_out
from pile_lightning.data.store import TokenStore, parts_folder, write_store
from pile_lightning.data.store_domains import counts_of, segments_by_domain
from pile_lightning.data.store_tokenizer import (
    MadeOf,
    own_tokenizer,
    save_tokenizer,
)
from pile_lightning.data.token_stream import StreamCounts
from pile_lightning.data.tokenizer_specs import bpe_vocab_size, load_tokenizer
from pile_lightning.data.tokenizers import Tokenizer
from pile_lightning.data.verified_files import find_damage, warn_of_damage

__all__ = ["Preparation"]


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
    """Where the documents come from."""
    tokenizer: str
    """Which tokenizer, see ``TextData``."""
    val_fraction: float
    """Share of the documents to hold out."""
    path: Path
    """Folder of the finished store; the parts lie beside it, for other stores too."""
    max_bad_fraction: float = 0.001
    """Share of a source's records that may be bad, see ``BadInput``."""
    train: bool = True
    """Whether to keep the documents to learn from, or only those held out."""
    held_out_bytes: int | None = None
    """Without ``train``, how many bytes to hold out, an equal share of each source: each is read
    from its beginning until it has given as many. None reads everything."""
    num_proc: int | None = None
    """Processes; None: one for each core that this process may use."""

    def __post_init__(self) -> None:
        if self.held_out_bytes is not None and (self.train or self.held_out_bytes < 1):
            raise ValueError(
                f"held_out_bytes={self.held_out_bytes} limits a store of held-out documents alone; "
                f"set train=False and give at least 1, or leave it out"
            )
        if not self.train and not self.val_fraction:
            raise ValueError(
                "train=False keeps held-out documents alone, and val_fraction=0 holds out none; "
                "set val_fraction above 0"
            )
        if self.num_proc is not None and self.num_proc < 1:
            raise ValueError(f"num_proc={self.num_proc} is too small; choose 1 or more")

    def run(self, *, quiet: bool = False) -> TokenStore:
        """Return the store, after making it where it does not exist or is damaged.

        Raises:
            CacheError: Where the cache cannot be written.
            ValueError: For sources without text, or whose documents are all held out or none.
        """
        store = self._find(quiet)
        if store is not None:
            return store

        def is_ready() -> bool:
            return self._find(quiet=True) is not None

        with building(self.path, is_ready=is_ready, quiet=quiet) as is_mine:
            return self._build(quiet) if is_mine else TokenStore(self.path)

    def _find(self, quiet: bool) -> TokenStore | None:
        """Return the store if it is there and holds what was written."""
        if not TokenStore.exists(self.path):
            return None
        try:
            store = TokenStore(self.path)
        except RuntimeError:
            warn_of_damage(self.path / "manifest.json", "it is not what was written")
            return None
        return None if find_damage(store.checksums, quiet=quiet) else store

    def _build(self, quiet: bool) -> TokenStore:
        began = time.monotonic()
        unfinished = self.path.with_name(f"{self.path.name}.partial")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a killed builder
        with writing_to(self.path.parent):
            unfinished.mkdir()
            parts_folder(self.path).mkdir(exist_ok=True)
        try:
            return self._build_in(unfinished, began, quiet)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _build_in(
        self, unfinished: Path, began: float, quiet: bool, notes: dict[str, Any] | None = None
    ) -> TokenStore:
        shards = [tuple(source.shards()) for source in self.sources]
        notes = self._notes() if notes is None else notes
        is_cut = isinstance(self.sources[0], CutDocument)
        if self.val_fraction and not is_cut and is_one_document(self._digests(shards)):
            pieces = cut_documents(self.sources, val_fraction=self.val_fraction)
            notes["cuts"] = [cut for each in pieces for cut in each.cuts()]
            return replace(self, sources=pieces)._build_in(unfinished, began, quiet, notes)
        bound = 0.0 if is_cut else held_out_bound(self._digests(shards), self.val_fraction)
        tokenizer = self._make_tokenizer(shards, bound, unfinished, quiet)
        encoder = tokenizer.encoder_name  # chosen here, once, and not in each process
        made = make_parts(
            self._plan(shards, tokenizer, bound),
            tokenizer=tokenizer,
            max_bad_fraction=self.max_bad_fraction,
            folder=parts_folder(self.path),
            unfinished=unfinished,
            num_proc=self.num_proc or default_num_proc(),
            quiet=quiet,
        )
        domains = segments_by_domain(self.sources, made.parts)
        train, val = (counts_of(split, domains) for split in SPLITS)
        self._check(train, val, made.bad)
        parts = {part.name: part for its_parts in made.parts for part in its_parts}
        with writing_to(self.path.parent):
            store = write_store(
                self.path,
                unfinished,
                tokenizer=tokenizer,
                parts=list(parts.values()),
                domains=domains,
                skipped=sum((bad.reasons for bad in made.bad), Counter()),
                fingerprint={"val_fraction": self.val_fraction, "held_out_below": bound},
                notes=notes,
            )
        warn_of_bad_input(made.bad)
        if not quiet:
            seconds = time.monotonic() - began
            print(_summary(train, val, made.bytes_found, encoder, seconds, self.path), flush=True)
            for line in store.remarks():
                print(line, flush=True)
            if not store.exact_bytes:
                print(
                    "this tokenizer does not keep every byte of its text: bytes are counted by "
                    "document, where its last token is predicted",
                    flush=True,
                )
        return store

    def _notes(self) -> dict[str, Any]:
        """Return what is to be known of the sources besides what they hold."""
        left_out = {source.name: source.left_out() for source in self.sources}
        notes: dict[str, Any] = {
            "left_out": {name: line for name, line in left_out.items() if line}
        }
        if not self.train:  # a stream reads its sources again, perhaps copies of them
            notes["sources"] = [source.content_fingerprint() for source in self.sources]
        return notes

    def _digests(self, shards: Sequence[Sequence[Shard]]) -> Iterator[bytes]:
        return (text.digest for text, _ in self._read(shards))

    def _read(self, shards: Sequence[Sequence[Shard]]) -> Iterator[tuple[Text, bool]]:
        """Yield the documents of all sources, in order, and whether their shard is held out."""
        for source, its_shards in zip(self.sources, shards, strict=True):
            bad = BadInput(
                source=source.name,
                max_bad_fraction=self.max_bad_fraction,
                max_record_bytes=source.record_limit,
            )
            held_out = False

            def items(source: Source, its_shards: Sequence[Shard]) -> Iterator[Document | Skipped]:
                nonlocal held_out
                for shard in its_shards:
                    held_out = shard.held_out
                    yield from source.read(shard)

            for text in texts_of(bad.documents(items(source, its_shards))):
                yield text, held_out

    def _make_tokenizer(
        self, shards: Sequence[Sequence[Shard]], bound: float, unfinished: Path, quiet: bool
    ) -> Tokenizer:
        vocab_size = bpe_vocab_size(self.tokenizer)
        made_of = None
        if vocab_size is None:
            tokenizer = load_tokenizer(self.tokenizer)
        else:
            tokenizer, made_of = own_tokenizer(
                MadeOf.of(self.sources, shards, spec=self.tokenizer, bound=bound),
                (
                    text
                    for text, of_held_out in self._read(shards)
                    if not (of_held_out or is_held_out(text.digest, bound))
                ),
                vocab_size=vocab_size,
                store=self.path,
                quiet=quiet,
            )
        with writing_to(self.path.parent):
            # now, so that a killed build goes on with the same
            save_tokenizer(tokenizer, made_of, unfinished=unfinished, store=self.path)
        return tokenizer

    def _plan(
        self, shards: Sequence[Sequence[Shard]], tokenizer: Tokenizer, bound: float
    ) -> list[list[PartPlan]]:
        settings = PartSettings(tokenizer=tokenizer.fingerprint(), bound=bound, train=self.train)
        limit = self.held_out_bytes
        if limit is not None:
            limit = -(-limit // len(self.sources))
        return [
            [
                PartPlan(source=source, shards=group, settings=settings, held_out_bytes=limit)
                # what stops in the middle is read in order, by one process
                for group in (group_shards(its_shards) if limit is None else [tuple(its_shards)])
            ]
            for source, its_shards in zip(self.sources, shards, strict=True)
        ]

    def _check(self, train: StreamCounts, val: StreamCounts, bad: Sequence[BadInput]) -> None:
        left_out = "".join(f"\n{each.describe()}" for each in bad if each.num_records)
        where = ", ".join(repr(source.name) for source in self.sources)
        if not train.documents + val.documents:
            raise ValueError(
                f"the sources ({where}) hold no text; give documents that are not empty{left_out}"
            )
        if not train.documents and self.train:
            raise ValueError(
                f"val_fraction={self.val_fraction} holds out every one of the {val.documents} "
                f"documents of {where} (by the hash of their content), and none is left to train "
                f"on; give more documents, or set val_fraction=0"
            )


def _summary(
    train: StreamCounts,
    val: StreamCounts,
    bytes_found: int,
    encoder: str,
    seconds: float,
    path: Path,
) -> str:
    both = train + val
    text_tokens = both.tokens - both.documents
    found = f"; {bytes_found / 1e6:,.1f} MB were prepared before" if bytes_found else ""
    return (
        f"prepared {both.documents:,} documents, {both.num_bytes / 1e6:,.1f} MB as "
        f"{both.tokens / 1e6:,.2f} M tokens ({both.num_bytes / max(1, text_tokens):.2f} bytes a "
        f"token; {val.documents:,} documents, {val.num_bytes / 1e6:,.2f} MB held out{found}) in "
        f"{seconds:.1f} s with {encoder}: {path}"
    )
