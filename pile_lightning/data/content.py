"""A hash of a sequence of documents that does not depend on how the sequence is cut.

Two pieces of a sequence are hashed apart, by processes that know nothing of each other, and their
hashes add up to that of the whole: so data prepared in other portions are still the same data.
"""

import hashlib
from dataclasses import dataclass

__all__ = ["SequenceHash"]

_PRIME = 2**255 - 19
_BASE = int.from_bytes(hashlib.sha256(b"pile_lightning").digest(), "big") % _PRIME


@dataclass(frozen=True)
class SequenceHash:
    """The documents' hashes as the digits of a number, in a large base, modulo a prime.

    Example:
        >>> a, b = bytes(32), bytes([7] * 32)
        >>> whole = SequenceHash().then(a).then(b)
        >>> whole == SequenceHash().then(a) + SequenceHash().then(b)
        True
        >>> whole == SequenceHash().then(b).then(a)
        False
    """

    value: int = 0
    """The number."""
    count: int = 0
    """How many documents it stands for."""

    def then(self, digest: bytes) -> "SequenceHash":
        """Return the hash of this sequence and one document more."""
        return SequenceHash(
            (self.value * _BASE + int.from_bytes(digest, "big")) % _PRIME, self.count + 1
        )

    def __add__(self, other: "SequenceHash") -> "SequenceHash":
        shifted = self.value * pow(_BASE, other.count, _PRIME)
        return SequenceHash((shifted + other.value) % _PRIME, self.count + other.count)

    def hex(self) -> str:
        """Return the hash in letters and digits."""
        return f"{self.value:064x}"
