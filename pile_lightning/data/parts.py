"""Parts: the tokens of some shards of a source, in three files that never change.

``NAME.tokens`` holds the documents' tokens, sorted by split and domain, within each in the order
of the source. ``NAME.documents`` holds where each document ends in its segment, then each
document's size in UTF-8 bytes. ``NAME.json`` says which segments there are and what was skipped. It
is written last and at once: where it is missing, or the others are not as long as it says, there is
no part. Stores share the parts of a folder.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pile_lightning.data.content import SequenceHash
from pile_lightning.data.part_plan import FORMAT
from pile_lightning.data.policy import BadInput
from pile_lightning.data.token_stream import DOCUMENT_DTYPE, StreamCounts

__all__ = ["SPLITS", "Part", "PartSegment", "part_is_whole", "publish", "write_json"]

SPLITS = ("train", "val")
"""The documents to learn from, and those held out."""

_COUNTED = ("num_records", "reasons", "places", "missing", "keys")


class PartSegment(NamedTuple):
    """The documents of one split and domain of a part."""

    split: str
    domain: str | None
    """The documents' own; None where it is the source's name."""
    counts: StreamCounts
    content: SequenceHash


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a part holds."""

    name: str
    dtype: str
    """Type of a token."""
    exact_bytes: bool
    """Whether the tokenizer's table of bytes adds up to every document's size."""
    bad: BadInput
    """What could not be read."""
    segments: tuple[PartSegment, ...]
    """In the order of the files."""

    @property
    def counts(self) -> StreamCounts:
        """How much text it holds."""
        return sum((segment.counts for segment in self.segments), StreamCounts())

    @property
    def num_bytes_stored(self) -> int:
        """Bytes of its files, about."""
        return sum(_file_sizes(self.dtype, self.counts).values())

    def save(self, folder: Path) -> None:
        """Write the file that tells of it."""
        segments = [
            {
                "split": segment.split,
                "domain": segment.domain,
                **asdict(segment.counts),
                "content": segment.content.hex(),
            }
            for segment in self.segments
        ]
        plain = {
            "format": FORMAT,
            "dtype": self.dtype,
            "exact_bytes": self.exact_bytes,
            "bad": {key: getattr(self.bad, key) for key in _COUNTED},
            "segments": segments,
        }
        write_json(folder / f"{self.name}.json", plain)

    @classmethod
    def load(cls, folder: Path, name: str) -> "Part | None":
        """Return the part of a name, or None where there is no whole one."""
        try:
            plain = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            part = cls(
                name=name,
                dtype=plain["dtype"],
                exact_bytes=plain["exact_bytes"],
                bad=_bad_input(plain["bad"]),
                segments=tuple(map(_segment, plain["segments"])),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # nothing, or what a broken disk left: it is made again
        return part if part_is_whole(folder, name, part.dtype, part.counts) else None


def part_is_whole(folder: Path, name: str, dtype: str, counts: StreamCounts) -> bool:
    """Return whether a part's files are as long as they have to be."""
    sizes = _file_sizes(dtype, counts)
    try:
        return all((folder / f"{name}.{end}").stat().st_size == sizes[end] for end in sizes)
    except FileNotFoundError:
        return False


def _file_sizes(dtype: str, counts: StreamCounts) -> dict[str, int]:
    return {
        "tokens": counts.tokens * np.dtype(dtype).itemsize,
        "documents": counts.documents * 2 * DOCUMENT_DTYPE.itemsize,
    }


def _bad_input(plain: dict[str, Any]) -> BadInput:
    return BadInput(
        num_records=plain["num_records"],
        reasons=Counter(plain["reasons"]),
        places=plain["places"],
        missing=Counter(plain["missing"]),
        keys=Counter(plain["keys"]),
    )


def _segment(plain: dict[str, Any]) -> PartSegment:
    counts = StreamCounts(**{key: plain[key] for key in ("documents", "tokens", "num_bytes")})
    content = SequenceHash(int(plain["content"], 16), counts.documents)
    return PartSegment(plain["split"], plain["domain"], counts, content)


def write_json(path: Path, plain: Any) -> None:
    """Write a JSON file through to the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(plain, file)
        file.flush()
        os.fsync(file.fileno())


def publish(files: Iterable[Path], folder: Path) -> None:
    """Move finished files of the same disk into a folder, in order, each at once."""
    for file in files:
        os.replace(file, folder / file.name)
    if os.name != "nt":  # so that the names, too, outlast a power cut
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
