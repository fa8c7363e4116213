"""What there is to train on, in numbers, by domain: of a prepared store, or of a stream.

Of a prepared store everything is known. Of a stream some documents are read, whole, from shards all
over each source; the shares are those of the mixture, which knows the sources' sizes at best.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from pile_lightning.data.order import shuffled
from pile_lightning.data.policy import BadInput
from pile_lightning.data.readers import Document, Skipped
from pile_lightning.data.sources import Source
from pile_lightning.data.split import content_hash, is_held_out
from pile_lightning.data.streamed import StreamedText
from pile_lightning.data.text import TextData
from pile_lightning.data.token_stream import StreamCounts

__all__ = ["DomainSurvey", "Survey", "survey"]

_SHARDS = 4
_TEXTS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class DomainSurvey:
    """The documents of one domain."""

    train: StreamCounts = StreamCounts()
    """What there is to learn from; of a stream, what was read of it."""
    held_out: StreamCounts = StreamCounts()
    """What is scored."""
    lengths: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Tokens of each document to learn from, with the one that opens it (documents,)."""
    natural: float | None = None
    """Share of all tokens; of a stream, of all bytes where they are known."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a model will see."""

    domains: Mapping[str, DomainSurvey]
    skipped: Mapping[str, int]
    """How many records are no document, by reason."""
    num_dropped: int | None
    """Tokens at the ends of domains that fill no row; None for a stream, which goes on."""
    read: StreamCounts | None
    """How much of a stream was read for this; None where everything is known."""
    padding: float | None = None
    """Share of the rows' positions that hold no token, where documents are kept whole."""

    @property
    def train(self) -> StreamCounts:
        """What there is to learn from."""
        return sum((domain.train for domain in self.domains.values()), StreamCounts())

    @property
    def held_out(self) -> StreamCounts:
        """What is scored."""
        return sum((domain.held_out for domain in self.domains.values()), StreamCounts())


def survey(data: TextData | StreamedText, *, read_bytes: int = 4 << 20) -> Survey:
    """Return what prepared or streamed text is like.

    Args:
        data: The data module, prepared.
        read_bytes: How much of a stream to read, an equal part from each source.

    Example:
        >>> import tempfile
        >>> class Sums(TextData):
        ...     def documents(self):
        ...         return (Document(f"{i} + {i} = {2 * i}", f"sum {i}") for i in range(200))
        >>> data = Sums(tokenizer="byte", seq_len=64, cache_dir=tempfile.mkdtemp())
        >>> data.prepare_data()  # doctest: +ELLIPSIS
        prepared ...
        >>> found = survey(data)
        >>> found.train.documents + found.held_out.documents
        200
    """
    return _of_store(data) if isinstance(data, TextData) else _of_stream(data, read_bytes)


def _of_store(data: TextData) -> Survey:
    store = data.store
    tokens = max(1, store.counts("train").tokens)
    return Survey(
        domains={
            name: DomainSurvey(
                train=train.counts,
                held_out=held_out.counts,
                lengths=np.diff(train.ends, prepend=0),
                natural=train.counts.tokens / tokens,
            )
            for name, train, held_out in zip(
                store.domains, store.streams("train"), store.streams("val"), strict=True
            )
        },
        skipped=store.manifest["skipped"],
        num_dropped=data.training_rows.num_dropped,
        read=None,
        padding=data.padding if data.packing == "best_fit" else None,
    )


def _of_stream(data: StreamedText, read_bytes: int) -> Survey:
    sources = data._training_sources
    sizes = [source.num_bytes() for source in sources]
    whole = sum(size or 0 for size in sizes) if all(sizes) else 0
    skipped: Counter[str] = Counter()
    domains = {}
    for source, size in zip(sources, sizes, strict=True):
        bad = BadInput(source=source.name)
        read = _read(data, source, bad, max(1, read_bytes // len(sources)))
        domains[source.name] = replace(read, natural=(size or 0) / whole if whole else None)
        skipped += bad.reasons
    read_in_all = sum((domain.train for domain in domains.values()), StreamCounts())
    for name, stream in zip(data.domains, data.store.streams("val"), strict=True):
        domain = domains.get(name, DomainSurvey())
        domains[name] = replace(domain, held_out=stream.counts)
    return Survey(domains=domains, skipped=skipped, num_dropped=None, read=read_in_all)


def _read(data: StreamedText, source: Source, bad: BadInput, limit: int) -> DomainSurvey:
    """Read documents to learn from, until they hold so many bytes."""
    lengths: list[int] = []
    texts: list[str] = []
    size = num_bytes = 0
    for item in _from_all_over(source, limit):
        document = bad.count(item)
        if document is None:
            continue
        encoded = document.text.encode()
        num_bytes += len(encoded)
        if not is_held_out(content_hash(encoded), data.store.held_out_below):
            size += len(encoded)
            texts.append(document.text)
        if len(texts) == _TEXTS_AT_ONCE or num_bytes >= limit:
            lengths += [len(ids) + 1 for ids in data.tokenizer.encode_batch(texts)]
            texts.clear()
        if num_bytes >= limit:
            break
    lengths += [len(ids) + 1 for ids in data.tokenizer.encode_batch(texts)]
    train = StreamCounts(documents=len(lengths), tokens=sum(lengths), num_bytes=size)
    return DomainSurvey(train=train, lengths=np.array(lengths, np.int64))


def _from_all_over(source: Source, limit: int) -> Iterator[Document | Skipped]:
    """Yield items of a source, from its shards in a mixed order, of each a part of ``limit``."""
    shards = [shard for shard in source.shards() if not shard.held_out]
    part = limit // max(1, min(_SHARDS, len(shards)))
    for number in shuffled(len(shards), 0):
        size = 0
        for item in source.read(shards[number]):
            yield item
            size += len(item.text) if isinstance(item, Document) else 0
            if size >= part:
                break
