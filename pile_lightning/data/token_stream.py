"""One domain's documents of one split, as one long stream of tokens that is read from many files.

A stream is every document as the start token and its tokens, one after the other. Its tokens lie
in *segments*, stretches of the files of parts (see ``parts``). They are read, not mapped: a map
costs an open file for as long as it lives, and 19 us where it has to be made first; opening and
reading costs 5 us, and reading an open file 3 us, for 1024 tokens.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["DOCUMENT_DTYPE", "Segment", "StreamCounts", "TokenStream", "forget_open_files"]

DOCUMENT_DTYPE = np.dtype("<i8")
"""Type of a document's end and of its size."""


@dataclass(frozen=True, kw_only=True)
class StreamCounts:
    """How much text a stream, or several together, holds."""

    documents: int = 0
    tokens: int = 0
    """Tokens, the start tokens among them."""
    num_bytes: int = 0
    """UTF-8 bytes of text."""

    def __add__(self, other: "StreamCounts") -> "StreamCounts":
        return StreamCounts(
            documents=self.documents + other.documents,
            tokens=self.tokens + other.tokens,
            num_bytes=self.num_bytes + other.num_bytes,
        )


class Segment(NamedTuple):
    """A stretch of the documents of a part."""

    part: str
    """The part's name."""
    part_documents: int
    """Documents of the whole part."""
    first_document: int
    """Number of its first document within the part."""
    first_token: int
    """Place of its first token within the part."""
    counts: StreamCounts


@dataclass(frozen=True, kw_only=True)
class TokenStream:
    """Documents in a fixed order; each process opens their files when it first reads."""

    folder: Path
    """Where the parts lie."""
    dtype: str
    """Type of a token."""
    segments: Sequence[Segment]
    """What the stream is made of, in order."""

    @cached_property
    def counts(self) -> StreamCounts:
        """How much text there is."""
        return sum((segment.counts for segment in self.segments), StreamCounts())

    def read(self, start: int, end: int) -> npt.NDArray[Any]:
        """Return the tokens from place ``start`` to before ``end`` of the stream, in an array."""
        data = np.empty(max(0, min(end, self._starts[-1]) - start), self._dtype)
        self.read_into(data.view(np.uint8).data, start)
        return data

    def read_into(self, buffer: memoryview, start: int) -> None:
        """Fill a buffer of bytes with the tokens from ``start`` on; behind the last it stays."""
        starts, itemsize = self._starts, self._dtype.itemsize
        number = bisect_right(starts, start) - 1
        while len(buffer) and number < len(self.segments):
            segment = self.segments[number]
            path = f"{self.folder}/{segment.part}.tokens"
            size = min(len(buffer), (starts[number + 1] - start) * itemsize)
            place = (segment.first_token + start - starts[number]) * itemsize
            buffer[:size] = _read_file(path, size, place)
            number, buffer = number + 1, buffer[size:]
            start = starts[number]

    def documents(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the tokens of each document, without its start token."""
        start = 0
        for end in self.ends.tolist():
            yield self.read(start + 1, end)
            start = end

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """Where each document ends in the stream (documents,)."""
        return np.concatenate([np.empty(0, DOCUMENT_DTYPE), *self.ends_by_segment()])

    def ends_by_segment(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yield where each document of a segment ends in the stream (documents,)."""
        for start, segment in zip(self._starts, self.segments, strict=False):
            yield start + self._documents(segment, 0)

    @cached_property
    def num_bytes(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of each document (documents,)."""
        sizes = [self._documents(segment, 1) for segment in self.segments]
        return np.concatenate([np.empty(0, DOCUMENT_DTYPE), *sizes])

    def bytes_ending_in(self, start: int, end: int) -> int:
        """Return the bytes of the documents whose last token is from ``start`` to before ``end``.

        Only the documents of the segments between are read.
        """
        total = 0
        first = max(0, bisect_right(self._starts, start) - 1)
        for number in range(first, bisect_left(self._starts, end, hi=len(self.segments))):
            segment, offset = self.segments[number], self._starts[number]
            last_tokens = self._documents(segment, 0) - 1
            low, high = np.searchsorted(last_tokens, (start - offset, end - offset))
            total += int(self._documents(segment, 1)[low:high].sum())
        return total

    @cached_property
    def _starts(self) -> list[int]:
        """Where each segment begins in the stream, and where the last one ends."""
        return list(accumulate((segment.counts.tokens for segment in self.segments), initial=0))

    @cached_property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    def _documents(self, segment: Segment, column: int) -> npt.NDArray[np.int64]:
        path = f"{self.folder}/{segment.part}.documents"
        first = column * segment.part_documents + segment.first_document
        itemsize = DOCUMENT_DTYPE.itemsize
        data = _read_file(path, segment.counts.documents * itemsize, first * itemsize)
        return np.frombuffer(data, DOCUMENT_DTYPE)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("folder", "dtype", "segments")}


def _read_file(path: str, size: int, place: int) -> bytes:
    for _ in range(2):
        try:
            data = _open_file(path).read(size, place)
        except FileNotFoundError:
            break
        if len(data) == size:
            return data
        _open_file.cache_clear()  # it may have been made again since it was opened
    raise RuntimeError(
        f"the prepared data have lost {path}; call prepare_data() (a Trainer does when it starts), "
        f"which makes again what is missing"
    )


class _OpenFile:
    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def read(self, size: int, place: int) -> bytes:
        """Return the bytes that stand at ``place``, fewer only where the file ends."""
        data = _pread(self._descriptor, size, place)
        while 0 < len(data) < size:  # a single read gives at most 2 GB
            more = _pread(self._descriptor, size - len(data), place + len(data))
            if not more:
                break
            data += more
        return data

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _seek_and_read(descriptor: int, size: int, place: int) -> bytes:
    # for Windows: without fork nobody shares the descriptor, so its position is ours
    os.lseek(descriptor, place, os.SEEK_SET)
    return os.read(descriptor, size)


_pread = os.pread if hasattr(os, "pread") else _seek_and_read


def _files_open() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 256
    return min(4096, max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))


@lru_cache(maxsize=_files_open())
def _open_file(path: str) -> _OpenFile:
    """Return a file that stays open until enough others are needed."""
    return _OpenFile(path)


def forget_open_files() -> None:
    """Open files again where they are read next: they may have been made again meanwhile."""
    _open_file.cache_clear()
