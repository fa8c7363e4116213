"""Which documents are held out: a pure function of their content, so that copies never straddle."""

import hashlib
import math
from collections.abc import Iterable

__all__ = ["content_hash", "held_out_bound", "is_held_out"]


def content_hash(text: bytes) -> bytes:
    """Return the hash (BLAKE2b, 8 bytes) by which a document is known, whatever it is called."""
    return hashlib.blake2b(text, digest_size=8).digest()


def is_held_out(digest: bytes, bound: float) -> bool:
    """Return whether a document is held out: its hash, as a number from 0 to 1, is below ``bound``.

    Example:
        >>> is_held_out(bytes(8), 0.05), is_held_out(bytes([255] * 8), 0.05)
        (True, False)
    """
    return _fraction(digest) < bound


def held_out_bound(digests: Iterable[bytes], val_fraction: float) -> float:
    """Return the bound that holds out about ``val_fraction`` of the documents, and at least one.

    Of few documents chance may leave none below ``val_fraction``; then the one with the smallest
    hash is held out. Reading stops at the first that is below.

    Example:
        >>> few = [content_hash(name) for name in (b"a", b"b", b"c")]
        >>> sum(is_held_out(digest, held_out_bound(few, 0.01)) for digest in few)
        1
    """
    smallest = largest = None
    for fraction in map(_fraction, digests):
        if val_fraction == 0 or fraction < val_fraction:
            return val_fraction
        smallest = fraction if smallest is None else min(smallest, fraction)
        largest = fraction if largest is None else max(largest, fraction)
    if smallest is None or smallest == largest:
        return val_fraction
    return math.nextafter(smallest, 1.0)


def _fraction(digest: bytes) -> float:
    # 53 bits: what a float holds exactly
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)
