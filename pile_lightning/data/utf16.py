"""UTF-16, as Windows writes it: a file that begins with its mark is read as what it is."""

import codecs
from collections.abc import Iterable, Iterator
from itertools import chain

from pile_lightning.data.compression import Damage
from pile_lightning.data.file import File

__all__ = ["as_utf8", "is_utf16"]

_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_utf16(file: File) -> bool:
    """Return whether a file on this machine begins with the mark of UTF-16."""
    if not file.is_local:
        return False
    with open(file.path, "rb", buffering=0) as opened:
        return opened.read(2) in _MARKS


def as_utf8(chunks: Iterable[bytes | Damage]) -> Iterator[bytes | Damage]:
    r"""Yield the chunks of a file, in UTF-8 where they begin with the mark of UTF-16.

    Half of a pair of surrogates becomes a byte that is no UTF-8, so that its text is left out.

    Example:
        >>> list(as_utf8(["a text".encode("utf-16")]))
        [b'a text']
    """
    chunks = iter(chunks)
    first = next(chunks, None)
    if first is None:
        return
    if isinstance(first, Damage) or first[:2] not in _MARKS:
        yield first
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder("utf-16")(errors="surrogatepass")
    for chunk in chain([first], chunks):
        if isinstance(chunk, Damage):
            yield chunk
        elif text := decoder.decode(chunk):
            yield text.encode("utf-8", "surrogatepass")
    if decoder.getstate()[0]:  # half a character
        yield b"\xff"
