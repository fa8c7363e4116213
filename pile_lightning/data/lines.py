"""Lines of bytes: split at line feeds only, since U+2028 and its kind are text.

Of a line that is longer than allowed only its length is kept, however long it is.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from pile_lightning.data.compression import Damage
from pile_lightning.data.readers import MAX_RECORD_BYTES

__all__ = ["Cut", "LongLine", "count_lines", "lines_of_range", "split_lines"]

_CHUNK = 1 << 20


class LongLine(NamedTuple):
    """A line that is longer than allowed."""

    num_bytes: int
    """How long it is, its end left out."""


class Cut(Damage):
    """Damage within a line."""

    rest: bytes
    """What there is of the line."""

    def __new__(cls, reason: str, rest: bytes = b"") -> "Cut":
        """Make a ``Damage`` that knows the beginning of its line."""
        made = super().__new__(cls, reason)
        made.rest = rest
        return made


def split_lines(
    chunks: Iterable[bytes | Damage], max_bytes: int = MAX_RECORD_BYTES
) -> Iterator[bytes | LongLine | Cut]:
    r"""Yield the lines of a stream without their ends, and a ``Cut`` for each damage.

    Example:
        >>> list(split_lines([b"one\ntw", b"o\r\nthree"], max_bytes=4))
        [b'one', b'two\r', LongLine(num_bytes=5)]
    """
    begun = _Line(max_bytes)
    for chunk in chunks:
        if isinstance(chunk, Damage):
            yield Cut(chunk.reason, begun.rest())
            begun = _Line(max_bytes)
            continue
        # in pieces: what is decompressed at once may hold millions of lines
        for at in range(0, len(chunk), _CHUNK):
            first, *others = chunk[at : at + _CHUNK].split(b"\n")
            begun.add(first)
            if others:
                yield begun.whole()
                last = others.pop()
                for line in others:
                    yield line if len(line) <= max_bytes else LongLine(len(line))
                begun = _Line(max_bytes)
                begun.add(last)
    if begun.num_bytes:
        yield begun.whole()


class _Line:
    """What there is of a line."""

    __slots__ = ("_max_bytes", "_parts", "num_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []  # joined once, so that a long line costs no more
        self.num_bytes = 0

    def add(self, part: bytes) -> None:
        self.num_bytes += len(part)
        if self.num_bytes <= self._max_bytes:
            self._parts.append(part)
        else:
            self._parts.clear()

    def rest(self) -> bytes:
        return b"".join(self._parts)

    def whole(self) -> bytes | LongLine:
        return LongLine(self.num_bytes) if self.num_bytes > self._max_bytes else self.rest()


def lines_of_range(
    file: BinaryIO, begin: int, end: int, max_bytes: int = MAX_RECORD_BYTES
) -> tuple[int, Iterator[bytes | LongLine]]:
    r"""Return where the first line begins that begins in a range, and the lines that do.

    The last of them may end behind the range. Ranges that follow one another hold every line once.

    Args:
        file: Can be read anywhere.
        begin: First byte of the range.
        end: First byte behind it.
        max_bytes: Of a line that is longer, only its length is returned.

    Example:
        >>> import io
        >>> [list(lines_of_range(io.BytesIO(b"one\ntwo"), i, i + 4)[1]) for i in (0, 4)]
        [[b'one'], [b'two']]
    """
    if begin:
        file.seek(begin - 1)
        # no further than the range: a line that begins before it may be long
        before = file.readline(end - begin)
        begin = begin - 1 + len(before) if before.endswith(b"\n") else end
    return begin, _lines_until(file, begin, end, max_bytes)


def _lines_until(
    file: BinaryIO, position: int, end: int, max_bytes: int
) -> Iterator[bytes | LongLine]:
    file.seek(position)
    while position < end:
        line = file.readline(max_bytes + 1)
        if not line:
            return
        position += len(line)
        if len(line) <= max_bytes or line.endswith(b"\n"):
            yield line.removesuffix(b"\n")
            continue
        num_bytes = len(line)
        while not line.endswith(b"\n") and (line := file.readline(_CHUNK)):
            position += len(line)
            num_bytes += len(line) - line.endswith(b"\n")
        yield LongLine(num_bytes)


@lru_cache(maxsize=1 << 16)
def count_lines(path: str, stamp: str, begin: int, end: int) -> int:
    """Return the number of line feeds in a range of a file; ``stamp`` is that of its content."""
    with open(path, "rb") as file:
        file.seek(begin)
        chunks = (file.read(min(_CHUNK, end - at)) for at in range(begin, end, _CHUNK))
        return sum(chunk.count(b"\n") for chunk in chunks)
