"""Decompressing gzip and zstd as a stream that says where it is damaged, and goes on behind that.

The libraries' own file objects lose what they have read so far when they meet damage, and
zstandard's takes a truncated file for a whole one; so both formats are fed by hand here, piece by
piece. Files of several members (as gzip calls them; zstd: frames) are read to their end.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol, cast

import zstandard

__all__ = ["CODECS", "Codec", "Damage", "decompress"]

# small: where a member is damaged, pieces before the damage are whole; larger is not faster
_PIECE = 4 << 10


class Damage(NamedTuple):
    """A place in a stream behind which something is missing."""

    reason: str
    """What is wrong, for example ``truncated gzip data``."""


class _Member(Protocol):
    """What decompresses one member."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _gzip_member() -> _Member:
    return zlib.decompressobj(wbits=31)


def _zstd_frame() -> _Member:
    # the largest window of the format's long mode; memory is taken only as it is used
    return cast(_Member, zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj())


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A format of compressed streams."""

    name: str
    """What it is called in messages."""
    magic: bytes
    """What a member begins with."""
    begin: Callable[[], _Member]
    """Makes what decompresses one member."""
    error: type[Exception]
    """What that raises on damage."""


CODECS = {
    ".gz": Codec(name="gzip", magic=b"\x1f\x8b\x08", begin=_gzip_member, error=zlib.error),
    ".zst": Codec(
        name="zstd", magic=b"\x28\xb5\x2f\xfd", begin=_zstd_frame, error=zstandard.ZstdError
    ),
}
"""The formats by suffix."""


def decompress(file: BinaryIO, codec: Codec, *, can_seek: bool = True) -> Iterator[bytes | Damage]:
    """Yield what a compressed file holds, and a ``Damage`` wherever something of it is missing.

    All that can be decompressed is yielded: what comes before a cut or damage, and behind damage
    from the next member on.

    Args:
        file: Opened for reading, at its start.
        codec: Its format.
        can_seek: Whether the file can be read again; without, up to 4 kB before damage are lost.

    Example:
        >>> import gzip, io
        >>> cut = gzip.compress(b"one", mtime=0) + gzip.compress(b"two", mtime=0)[:-3]
        >>> list(decompress(io.BytesIO(cut), CODECS[".gz"]))
        [b'one', b'two', Damage(reason='truncated gzip data')]
    """
    data, position = file.read(_PIECE), 0
    if not data:
        yield Damage(f"truncated {codec.name} data")
    while data:
        member, begin = codec.begin(), position
        while not member.eof:
            if not data:
                yield Damage(f"truncated {codec.name} data")
                return
            try:
                text = member.decompress(data)
            except codec.error:
                if can_seek:
                    yield from _before_damage(file, codec, begin, position, data)
                yield Damage(f"corrupt {codec.name} data")
                # not this member's own beginning again
                data, position = _next_member(file, codec, data, position, position == begin)
                break
            if text:
                yield text
            position += len(data) - len(member.unused_data)
            data = member.unused_data or file.read(_PIECE)
        while data[:1] == b"\0":  # padding, which gzip allows between members and at the end
            stripped = data.lstrip(b"\0")
            position += len(data) - len(stripped)
            data = stripped or file.read(_PIECE)


def _before_damage(
    file: BinaryIO, codec: Codec, begin: int, position: int, data: bytes
) -> Iterator[bytes]:
    """Yield what the piece ``data`` of a member holds before the byte at which it is damaged.

    The member is decompressed once more up to the piece, which then is fed byte by byte.
    """
    here = file.tell()
    member = codec.begin()
    file.seek(begin)
    while begin < position:
        piece = file.read(min(_PIECE, position - begin))
        member.decompress(piece)
        begin += len(piece)
    for i in range(len(data)):
        try:
            text = member.decompress(data[i : i + 1])
        except codec.error:
            break
        if text:
            yield text
    file.seek(here)


def _next_member(
    file: BinaryIO, codec: Codec, data: bytes, position: int, first: int
) -> tuple[bytes, int]:
    """Return what follows from the next beginning of a member on, and where that is."""
    at = data.find(codec.magic, first)
    while at < 0:
        more = file.read(_PIECE)
        if not more:
            return b"", position + len(data)
        kept = data[-(len(codec.magic) - 1) :]  # where a magic may have begun
        position += len(data) - len(kept)
        data = kept + more
        at = data.find(codec.magic)
    return data[at:], position + at
