"""Writes the files of a part, document by document, with little in memory.

Documents come in the order of the source, and the files want them by split and domain. So each
segment collects its own, in memory as long as the part is small, else in a file of its own; these
are joined at the end. A part is made in a folder for unfinished work and moved when it is whole.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pile_lightning.checksum import Checksum, SummingFile
from pile_lightning.data.cache_errors import writing_to
from pile_lightning.data.content import SequenceHash
from pile_lightning.data.parts import SPLITS, Part, PartSegment
from pile_lightning.data.policy import BadInput
from pile_lightning.data.token_stream import DOCUMENT_DTYPE, StreamCounts
from pile_lightning.data.tokenizers import Tokenizer
from pile_lightning.data.verified_files import publish

__all__ = ["PartWriter"]

_IN_MEMORY_BYTES = 16 << 20


class PartWriter:
    """Makes one part.

    Args:
        name: What it will be called.
        unfinished: Folder for files that are not whole.
        tokenizer: What encodes the documents.
    """

    def __init__(self, name: str, unfinished: Path, tokenizer: Tokenizer) -> None:
        self.name, self.unfinished, self.tokenizer = name, unfinished, tokenizer
        self.table = tokenizer.token_num_bytes
        self.stored = 0
        """Bytes written so far, or to be written."""
        self._dtype = np.dtype(tokenizer.dtype).newbyteorder("<")
        self._start = np.array([tokenizer.start_id], self._dtype)
        self._segments: dict[tuple[str, str | None], _Segment] = {}
        self._in_memory = 0

    def add(
        self,
        split: str,
        domain: str | None,
        ids: npt.NDArray[Any],
        *,
        num_bytes: int,
        digest: bytes,
    ) -> None:
        """Append a document, given its tokens without the start token.

        Raises:
            ValueError: Where the tokens hold the start token.
        """
        if (ids == self.tokenizer.start_id).any():
            raise ValueError(
                f"the tokenizer encoded ordinary text to its start token (id "
                f"{self.tokenizer.start_id}), which has to mark documents; choose another tokenizer"
            )
        if self.table is not None and self.table[ids].sum() != num_bytes:
            self.table = None
        segment = self._segments.get((split, domain))
        if segment is None:
            stem = self.unfinished / f"{self.name}.{len(self._segments)}"
            segment = self._segments[split, domain] = _Segment(stem)
        size = segment.add(np.concatenate([self._start, ids], dtype=self._dtype), num_bytes, digest)
        self.stored += size
        self._in_memory += size
        if self._in_memory >= _IN_MEMORY_BYTES:
            with writing_to(self.unfinished.parent):
                for segment in self._segments.values():
                    segment.spill()
            self._in_memory = 0

    def finish(self, folder: Path, *, bad: BadInput) -> Part:
        """Write the files, move them to ``folder`` and return what they hold."""
        segments = sorted(self._segments.items(), key=_place)
        stem = self.unfinished / self.name
        files = [stem.with_suffix(end) for end in (".tokens", ".documents", ".json")]
        with writing_to(folder.parent):
            tokens = _join(files[0], [segment.tokens for _, segment in segments])
            ends = [segment.ends for _, segment in segments]
            documents = _join(files[1], [*ends, *(segment.sizes for _, segment in segments)])
            part = Part(
                name=self.name,
                dtype=self._dtype.str,
                exact_bytes=self.table is not None,
                bad=bad,
                segments=tuple(
                    PartSegment(split, domain, segment.counts, segment.content)
                    for (split, domain), segment in segments
                ),
                checksums={"tokens": tokens, "documents": documents},
            )
            part.save(self.unfinished)
            publish(files, folder)
        return part


class _Segment:
    def __init__(self, stem: Path) -> None:
        self.tokens, self.ends, self.sizes = (
            _Spool(stem.with_suffix(f"{stem.suffix}.{what}"))
            for what in ("tokens", "ends", "sizes")
        )
        self.counts = StreamCounts()
        self.content = SequenceHash()

    def add(self, tokens: npt.NDArray[Any], num_bytes: int, digest: bytes) -> int:
        self.counts += StreamCounts(documents=1, tokens=len(tokens), num_bytes=num_bytes)
        self.content = self.content.then(digest)
        self.tokens.write(tokens.data)
        self.ends.write(_number(self.counts.tokens))
        self.sizes.write(_number(num_bytes))
        return tokens.nbytes + 2 * DOCUMENT_DTYPE.itemsize

    def spill(self) -> None:
        for spool in (self.tokens, self.ends, self.sizes):
            spool.spill()


class _Spool:
    """Bytes in memory, and those before them in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._in_memory = bytearray()

    def write(self, piece: bytes | memoryview) -> None:
        self._in_memory += piece

    def spill(self) -> None:
        if self._in_memory:
            # opened each time: there may be more segments than files that may be open
            with self.path.open("ab") as file:
                file.write(memoryview(self._in_memory))
            self._in_memory = bytearray()

    def move_to(self, file: SummingFile) -> None:
        if self.path.exists():
            with self.path.open("rb") as spilled:
                shutil.copyfileobj(spilled, file, 1 << 20)
            self.path.unlink()
        file.write(memoryview(self._in_memory))


def _place(item: tuple[tuple[str, str | None], _Segment]) -> tuple[int, bool, str]:
    (split, domain), _ = item
    return SPLITS.index(split), domain is not None, domain or ""


def _number(value: int) -> bytes:
    return value.to_bytes(DOCUMENT_DTYPE.itemsize, "little")


def _join(path: Path, spools: list[_Spool]) -> Checksum:
    with path.open("wb") as opened:
        file = SummingFile(opened)
        for spool in spools:
            spool.move_to(file)
        return file.sync()
