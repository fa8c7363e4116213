"""Parts: the tokens of some shards of a source, in three files that never change.

``NAME.tokens`` holds the documents' tokens, sorted by split and domain, within each in the order
of the source. ``NAME.documents`` holds where each document ends in its segment, then each
document's size in UTF-8 bytes. ``NAME.json`` says which segments there are and what was skipped. It
is written last and at once: where it is missing, or the others are not as long as it says, there is
no part. It holds their checksums and its own. Stores share the parts of a folder.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pile_lightning.checksum import Checksum
from pile_lightning.data.content import SequenceHash
from pile_lightning.data.part_plan import FORMAT
from pile_lightning.data.policy import BadInput
from pile_lightning.data.token_stream import DOCUMENT_DTYPE, StreamCounts
from pile_lightning.data.verified_files import read_json, warn_of_damage, write_json

__all__ = ["SPLITS", "Part", "PartSegment", "part_is_whole"]

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
    checksums: Mapping[str, Checksum]
    """Of each file, by its suffix."""

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
            "name": self.name,
            "dtype": self.dtype,
            "exact_bytes": self.exact_bytes,
            "bad": {key: getattr(self.bad, key) for key in _COUNTED},
            "segments": segments,
            "checksums": self.checksums,
        }
        write_json(folder / f"{self.name}.json", plain)

    @classmethod
    def load(cls, folder: Path, name: str) -> "Part | None":
        """Return the part of a name, or None where there is no whole one.

        Its files are only measured: see ``find_damage``.
        """
        path = folder / f"{name}.json"
        try:
            plain = read_json(path)
            if plain["name"] != name:
                raise ValueError(f"{path} is that of another part")
            part = cls(
                name=name,
                dtype=plain["dtype"],
                exact_bytes=plain["exact_bytes"],
                bad=_bad_input(plain["bad"]),
                segments=tuple(map(_segment, plain["segments"])),
                checksums={end: Checksum(*sums) for end, sums in plain["checksums"].items()},
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            warn_of_damage(path, "it is not what was written")
            return None
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
