"""What is done about bad input: left out, counted and told, until it is too much.

Judged are the records of one source: a broken file among many is an accident, a wrong ``text_key``
or a folder of something else is a mistake, and training should not begin on what is left.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pile_lightning.data.readers import (
    EMPTY,
    MAX_RECORD_BYTES,
    SURROGATE,
    Document,
    MissingField,
    Skipped,
    too_large,
)

__all__ = ["BadInput", "warn_of_bad_input"]

_RECORDS_BEFORE_JUDGING = 1000
# one bad file among fifty is no reason to stop, whatever its fraction
_TOLERATED = 10
_PLACES_SHOWN = 3
_KEYS_SHOWN = 10
_KEYS_KEPT = 1000
_KEY_LENGTH = 100


@dataclass(kw_only=True)
class BadInput:
    """Counts the records of a source and what of them is bad, and stops where it is too much.

    Empty text is counted, but is not bad. Processes that read parts of a source count each for
    itself, with ``count``; the one that they report to calls ``merge`` and ``judge``.

    Example:
        >>> bad = BadInput(source="books")
        >>> items = [Document("A text.", "a.txt"), Skipped("wrong UTF-8", "b.txt")]
        >>> [document.name for document in bad.documents(items)]
        ['a.txt']
        >>> bad.num_records, dict(bad.reasons)
        (2, {'wrong UTF-8': 1})

        >>> strict = BadInput(source="books", max_bad_fraction=0)
        >>> list(strict.documents(items))
        Traceback (most recent call last):
        ValueError: wrong UTF-8: b.txt, in source 'books'; repair or remove it, or set ...
    """

    source: str = ""
    """Name of the source, for messages."""
    max_bad_fraction: float = 0.001
    """Share of the records that may be bad, beside the first ten; 0 stops at the first."""
    max_record_bytes: int = MAX_RECORD_BYTES
    """Bytes of text that a document may have."""
    num_records: int = 0
    """Everything that was read."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How many records are no document, by reason, empty ones too."""
    places: dict[str, list[str]] = field(default_factory=dict)
    """Where the first of them are, by reason."""
    missing: Counter[str] = field(default_factory=Counter)
    """How many lack a field, by reason."""
    keys: Counter[str] = field(default_factory=Counter)
    """Which fields those have instead."""

    @property
    def num_bad(self) -> int:
        """Number of records that are bad."""
        return sum(self.reasons.values()) - self.reasons[EMPTY]

    def documents(self, items: Iterable[Document | Skipped]) -> Iterator[Document]:
        """Yield the good documents, all of a source.

        Raises:
            ValueError: Where too many of them are bad, or most lack a field.
        """
        for item in items:
            document = self.count(item)
            if document is not None:
                yield document
            if document is None or self.num_records == _RECORDS_BEFORE_JUDGING:
                self.judge()
        self.judge(at_end=True)

    def count(self, item: Document | Skipped) -> Document | None:
        """Count what was read, and return it if it is a good document."""
        self.num_records += 1
        if isinstance(item, Document):
            if not item.text:
                item = Skipped(EMPTY, item.name)
            elif self._is_too_large(item.text):
                item = Skipped(too_large(self.max_record_bytes), item.name)
            elif not _is_utf8(item.text):
                item = Skipped(SURROGATE, item.name)
            else:
                return item
        self.reasons[item.reason] += 1
        places = self.places.setdefault(item.reason, [])
        if len(places) < _PLACES_SHOWN:
            places.append(item.name)
        if isinstance(item, MissingField):
            self.missing[item.reason] += 1
            # records may have millions of them, each another
            if len(self.keys) < _KEYS_KEPT:
                self.keys.update(key[:_KEY_LENGTH] for key in item.keys[:_KEYS_KEPT])
        return None

    def _is_too_large(self, text: str) -> bool:
        limit = self.max_record_bytes
        # no character takes more than four bytes, so most texts need no second look
        return len(text) > limit // 4 and len(text.encode(errors="surrogatepass")) > limit

    def merge(self, other: "BadInput") -> None:
        """Add what another process counted in the same source."""
        self.num_records += other.num_records
        self.reasons += other.reasons
        self.missing += other.missing
        self.keys += other.keys
        for reason, places in other.places.items():
            self.places[reason] = (self.places.get(reason, []) + places)[:_PLACES_SHOWN]

    def judge(self, *, at_end: bool = False) -> None:
        """Raise ValueError where too much is bad of what was counted so far.

        Args:
            at_end: Whether everything is counted; before, few records are not judged.
        """
        if self.max_bad_fraction == 0 and self.num_bad:
            reason = next(reason for reason in self.reasons if reason != EMPTY)
            raise ValueError(
                f"{reason}: {self.places[reason][0]}, in source {self.source!r}; repair or remove "
                f"it, or set max_bad_fraction above 0 to leave such records out"
            )
        if not at_end and self.num_records < _RECORDS_BEFORE_JUDGING:
            return
        for reason, count in self.missing.items():
            if 2 * count > self.num_records:
                keys = ", ".join(repr(key) for key, _ in self.keys.most_common(_KEYS_SHOWN))
                raise ValueError(
                    f"{count} of {self.num_records} records of source {self.source!r} have "
                    f"{reason}; they have {keys or 'no fields'}: set text_key to the one that "
                    f"holds the text (domain_key to the one that names the domain)"
                )
        if self.num_bad > max(_TOLERATED, self.max_bad_fraction * self.num_records):
            raise ValueError(
                f"{self.describe()}\nthat is more than max_bad_fraction={self.max_bad_fraction} "
                f"of them: repair them, or raise max_bad_fraction to train on the rest"
            )

    def describe(self) -> str:
        """Return how many records are left out, with the reasons and the first places."""
        lines = [
            f"{self.num_bad} of {self.num_records} records of source {self.source!r} are left out:"
        ]
        for reason, count in self.reasons.most_common():
            if reason != EMPTY:
                more = ", ..." if count > len(self.places[reason]) else ""
                lines.append(f"  {count} x {reason}: {', '.join(self.places[reason])}{more}")
        return "\n".join(lines)


def warn_of_bad_input(sources: Iterable[BadInput]) -> None:
    """Warn once of all that is left out of some sources, if anything is."""
    told = [source.describe() for source in sources if source.num_bad]
    if told:
        warnings.warn("\n".join(told), stacklevel=2)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
