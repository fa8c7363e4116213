"""Lines of bytes: split at line feeds only, since U+2028 and its kind are text."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import BinaryIO

from pile_lightning.data.compression import Damage

__all__ = ["Cut", "count_lines", "lines_of_range", "split_lines"]

_CHUNK = 1 << 20


class Cut(Damage):
    """Damage within a line."""

    rest: bytes
    """What there is of the line."""

    def __new__(cls, reason: str, rest: bytes = b"") -> "Cut":
        """Make a ``Damage`` that knows the beginning of its line."""
        made = super().__new__(cls, reason)
        made.rest = rest
        return made


def split_lines(chunks: Iterable[bytes | Damage]) -> Iterator[bytes | Cut]:
    r"""Yield the lines of a stream without their ends, and a ``Cut`` for each damage.

    Example:
        >>> list(split_lines([b"one\ntw", b"o\r\nthree"]))
        [b'one', b'two\r', b'three']
    """
    begun: list[bytes] = []  # parts of a line: joined once, so that a long one costs no more
    for chunk in chunks:
        if isinstance(chunk, Damage):
            yield Cut(chunk.reason, b"".join(begun))
            begun = []
            continue
        first, *others = chunk.split(b"\n")
        begun.append(first)
        if others:
            yield b"".join(begun)
            last = others.pop()
            yield from others
            begun = [last]
    rest = b"".join(begun)
    if rest:
        yield rest


def lines_of_range(file: BinaryIO, begin: int, end: int) -> tuple[int, Iterator[bytes]]:
    r"""Return where the first line begins that begins in a range, and the lines that do.

    The last of them may end behind the range. Ranges that follow one another hold every line once.

    Args:
        file: Can be read anywhere.
        begin: First byte of the range.
        end: First byte behind it.

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
    return begin, _lines_until(file, begin, end)


def _lines_until(file: BinaryIO, position: int, end: int) -> Iterator[bytes]:
    if position < end:
        file.seek(position)
        for line in file:
            position += len(line)
            yield line.removesuffix(b"\n")
            if position >= end:
                return


@lru_cache(maxsize=1 << 16)
def count_lines(path: str, stamp: str, begin: int, end: int) -> int:
    """Return the number of line feeds in a range of a file; ``stamp`` is that of its content."""
    with open(path, "rb") as file:
        file.seek(begin)
        chunks = (file.read(min(_CHUNK, end - at)) for at in range(begin, end, _CHUNK))
        return sum(chunk.count(b"\n") for chunk in chunks)
