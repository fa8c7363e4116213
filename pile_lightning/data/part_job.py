"""Makes one part: reads its shards, splits, encodes and writes their documents."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pile_lightning.data.part_plan import PartPlan
from pile_lightning.data.part_writer import PartWriter
from pile_lightning.data.parts import Part
from pile_lightning.data.policy import BadInput
from pile_lightning.data.readers import Document, Skipped
from pile_lightning.data.split import content_hash, is_held_out
from pile_lightning.data.tokenizers import Tokenizer
from pile_lightning.data.workers import Report

__all__ = ["PartJob", "Text", "texts_of"]

_BATCH_BYTES = 1 << 20


class Text(NamedTuple):
    """A document with what its bytes tell."""

    text: str
    domain: str | None
    num_bytes: int
    digest: bytes


def _text(document: Document) -> Text:
    encoded = document.text.encode()
    return Text(document.text, document.domain, len(encoded), content_hash(encoded))


def texts_of(documents: Iterable[Document]) -> Iterator[Text]:
    """Return documents with their sizes and hashes."""
    return map(_text, documents)


@dataclass(frozen=True, kw_only=True)
class PartJob:
    """What a process needs to know to make a part."""

    plan: PartPlan
    tokenizer: Tokenizer
    max_bad_fraction: float
    """See ``BadInput``."""
    first: bool
    """Whether the part is the first of its source."""
    folder: Path
    """Where finished parts lie."""
    unfinished: Path
    """Where to write."""

    def __call__(self, report: Callable[[Report], None]) -> Part:
        """Make the part, and tell how far it is."""
        source = self.plan.source
        bad = BadInput(
            source=source.name,
            max_bad_fraction=self.max_bad_fraction,
            max_record_bytes=source.record_limit,
        )
        writer = PartWriter(self.plan.name, self.unfinished, self.tokenizer)
        limit = self.plan.held_out_bytes
        num_bytes = written = held_out = 0
        batch: list[tuple[str, Text]] = []
        for text, of_held_out, raw_bytes in self._texts(bad):
            num_bytes += text.num_bytes
            if of_held_out or is_held_out(text.digest, self.plan.settings.bound):
                held_out += text.num_bytes
                batch.append(("val", text))
            elif self.plan.settings.train:
                batch.append(("train", text))
            full = limit is not None and held_out >= limit
            if full or num_bytes - written >= _BATCH_BYTES:
                _write(writer, batch)
                written = num_bytes
                done = num_bytes if limit is None else held_out
                report(Report(done, raw_bytes, writer.stored))
            if full:
                break
        _write(writer, batch)
        report(Report(num_bytes if limit is None else held_out, 0, writer.stored))
        return writer.finish(self.folder, bad=bad)

    def _texts(self, bad: BadInput) -> Iterator[tuple[Text, bool, int]]:
        """Yield each document, whether its shard is held out, and the bytes of those before."""
        raw_bytes = 0
        for shard in self.plan.shards:
            for text in texts_of(self._documents(self.plan.source.read(shard), bad)):
                yield text, shard.held_out, raw_bytes
            raw_bytes += shard.num_bytes or 0

    def _documents(self, items: Iterable[Document | Skipped], bad: BadInput) -> Iterator[Document]:
        for item in items:
            document = bad.count(item)
            if document is not None:
                yield document
            # a later part says little of the source, whose parts are then judged together
            elif self.first or bad.max_bad_fraction == 0:
                bad.judge()


def _write(writer: PartWriter, batch: list[tuple[str, Text]]) -> None:
    """Encode and write a batch, and empty it."""
    encoded = writer.tokenizer.encode_batch([text.text for _, text in batch])
    for (split, text), ids in zip(batch, encoded, strict=True):
        writer.add(split, text.domain, ids, num_bytes=text.num_bytes, digest=text.digest)
    batch.clear()
