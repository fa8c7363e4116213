"""Which domains a store has, and which stretches of which parts belong to each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pile_lightning.data.content import SequenceHash
from pile_lightning.data.parts import SPLITS, Part
from pile_lightning.data.source import Source
from pile_lightning.data.token_stream import Segment, StreamCounts

__all__ = ["DomainSegments", "counts_of", "segments_by_domain"]


@dataclass
class DomainSegments:
    """The documents of one split and domain."""

    segments: list[Segment] = field(default_factory=list)
    content: SequenceHash = field(default_factory=SequenceHash)

    @property
    def counts(self) -> StreamCounts:
        """How much text there is."""
        return sum((segment.counts for segment in self.segments), StreamCounts())


def segments_by_domain(
    sources: Sequence[Source], parts: Sequence[Sequence[Part]]
) -> Mapping[str, Mapping[str, DomainSegments]]:
    """Return what belongs to each domain and each split, the domains in order.

    Domains come in the order of the sources, those of one source by name. A document's domain is
    the one that it names itself, else the name of its source.

    Args:
        sources: In order.
        parts: Of each source, in order.

    Raises:
        ValueError: Where a source is called like a domain that another's documents name.
    """
    domains: dict[str, dict[str, DomainSegments]] = {}
    owner: dict[str, tuple[int, bool]] = {}
    for number, (source, its_parts) in enumerate(zip(sources, parts, strict=True)):
        named = {segment.domain for part in its_parts for segment in part.segments} or {None}
        for domain in sorted(source.name if name is None else name for name in named):
            of_records = domain in named
            first, first_of_records = owner.setdefault(domain, (number, of_records))
            if first != number and not (of_records and first_of_records):
                raise ValueError(
                    f"{domain!r} is a domain of two sources, {sources[first].name!r} and "
                    f"{source.name!r}, and for one of them it is the source's own name; rename "
                    f"that one: FileSource(path, name=...)"
                )
            domains.setdefault(domain, {split: DomainSegments() for split in SPLITS})
        for part in its_parts:
            _add(part, source.name, domains)
    return domains


def counts_of(split: str, domains: Mapping[str, Mapping[str, DomainSegments]]) -> StreamCounts:
    """Return how much all domains hold of a split."""
    return sum((splits[split].counts for splits in domains.values()), StreamCounts())


def _add(part: Part, source: str, domains: dict[str, dict[str, DomainSegments]]) -> None:
    before, whole = StreamCounts(), part.counts
    for segment in part.segments:
        name = source if segment.domain is None else segment.domain
        target = domains[name][segment.split]
        target.segments.append(
            Segment(part.name, whole.documents, before.documents, before.tokens, segment.counts)
        )
        target.content += segment.content
        before += segment.counts
