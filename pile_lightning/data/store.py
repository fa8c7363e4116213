"""The prepared token store: for each split and domain, one stream of documents over many parts.

A store is a folder with a tokenizer and a manifest that names the parts (see ``parts``), with the
counts and the fingerprint; ``manifest.json`` comes last, and a folder without it is no store. The
parts lie beside the folder, where other stores use them too. Nothing in a store depends on where
it lies.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pile_lightning.checksum import Checksum, checksum
from pile_lightning.data.cut_document import CutPlace
from pile_lightning.data.part_plan import FORMAT
from pile_lightning.data.parts import SPLITS, Part, part_is_whole
from pile_lightning.data.store_domains import DomainSegments
from pile_lightning.data.token_stream import (
    Segment,
    StreamCounts,
    TokenStream,
    forget_open_files,
)
from pile_lightning.data.tokenizers import Tokenizer
from pile_lightning.data.verified_files import publish, read_json, write_json
from pile_lightning.file_names import check_file_name

__all__ = [
    "FORMAT",
    "SPLITS",
    "StreamCounts",
    "TokenStore",
    "TokenStream",
    "parts_folder",
    "write_store",
]

_MANIFEST, _TOKENIZER = "manifest.json", "tokenizer.json"


class TokenStore:
    """A finished store, read only.

    Args:
        path: Its folder.

    Raises:
        RuntimeError: Where there is none, or its manifest cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        forget_open_files()
        if not self.exists(path):
            raise RuntimeError(
                f"no data is prepared at {path}; call prepare_data() first (a Trainer does), and "
                f"on several nodes give a cache_dir that all of them see"
            )
        try:
            manifest = read_json(path / _MANIFEST)
            self.manifest: dict[str, Any] = manifest
            self.domains: tuple[str, ...] = tuple(manifest["domains"])
            self.fingerprint: dict[str, Any] = manifest["fingerprint"]
            self.held_out_below: float = self.fingerprint["held_out_below"]
            """Documents whose content hash is below it are held out."""
            self.exact_bytes: bool = manifest["exact_bytes"]
            """Whether the tokenizer's table of bytes adds up to every document's size."""
            for name, *_ in manifest["parts"]:
                check_file_name(name, of="a part")
            self._streams = {
                split: [_stream(path, manifest, plain) for plain in manifest["segments"][split]]
                for split in SPLITS
            }
            self.checksums: dict[Path, Checksum] = {
                path / _TOKENIZER: Checksum(*manifest["tokenizer"])
            }
            """What was written to each file."""
            for name, *_, checksums in manifest["parts"]:
                for end, sums in checksums.items():
                    self.checksums[parts_folder(path) / f"{name}.{end}"] = Checksum(*sums)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise RuntimeError(
                f"{path / _MANIFEST} is damaged; call prepare_data() (a Trainer does when it "
                f"starts), which makes it again"
            ) from error

    @staticmethod
    def exists(path: Path) -> bool:
        """Return whether there is a manifest at ``path``."""
        return (path / _MANIFEST).is_file()

    @classmethod
    def find(cls, path: Path) -> "TokenStore | None":
        """Return the store at ``path`` if all of its files have their length."""
        try:
            store = cls(path)
        except RuntimeError:
            return None
        return store if store.is_whole() else None

    def is_whole(self) -> bool:
        """Return whether all of its files are there and as long as they have to be."""
        parts = parts_folder(self.path)
        return (self.path / _TOKENIZER).is_file() and all(
            part_is_whole(
                parts,
                name,
                self.manifest["dtype"],
                StreamCounts(documents=documents, tokens=tokens),
            )
            for name, documents, tokens, _ in self.manifest["parts"]
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens.

        Raises:
            RuntimeError: Where its file is not what was written.
        """
        path = self.path / _TOKENIZER
        if not path.is_file() or list(checksum(path))[-1] != self.checksums[path]:
            raise RuntimeError(
                f"{path} is damaged; call prepare_data() (a Trainer does when it starts), which "
                f"makes it again"
            )
        return Tokenizer.load(path)

    def stream(self, split: str, domain: int) -> TokenStream:
        """Return the documents of a split and domain."""
        return self._streams[split][domain]

    def streams(self, split: str) -> tuple[TokenStream, ...]:
        """Return the streams of a split, one for each domain."""
        return tuple(self._streams[split])

    def remarks(self) -> list[str]:
        """Return what is not read of its sources and where one is cut, in lines."""
        notes = self.manifest["notes"]
        left_out = [f"not read in {name!r}: {line}" for name, line in notes["left_out"].items()]
        return left_out + [CutPlace(*cut).describe() for cut in notes.get("cuts", [])[:1]]

    def counts(self, split: str) -> StreamCounts:
        """Return how much a split holds."""
        return sum((stream.counts for stream in self.streams(split)), StreamCounts())


def write_store(
    path: Path,
    unfinished: Path,
    *,
    tokenizer: Tokenizer,
    parts: Sequence[Part],
    domains: Mapping[str, Mapping[str, DomainSegments]],
    skipped: Mapping[str, int],
    fingerprint: Mapping[str, Any],
    notes: Mapping[str, Any],
) -> TokenStore:
    """Make a store of finished parts and return it.

    Args:
        path: Its folder, with the tokenizer in it.
        unfinished: Folder on the same disk for files that are not whole.
        tokenizer: What encoded the documents.
        parts: All of its parts.
        domains: The segments of each domain and split.
        skipped: How many records could not be read, by reason.
        fingerprint: How the store was made, in plain data; the content's hash is added to it.
        notes: What else there is to know of its sources, in plain data.
    """
    numbers = {part.name: number for number, part in enumerate(parts)}
    manifest = {
        "format": FORMAT,
        "domains": list(domains),
        "dtype": np.dtype(tokenizer.dtype).newbyteorder("<").str,
        "exact_bytes": all(part.exact_bytes for part in parts),
        "fingerprint": {
            **fingerprint,
            "tokenizer": tokenizer.fingerprint(),
            "content": _content_hash(domains),
        },
        "skipped": dict(skipped),
        "notes": dict(notes),
        "tokenizer": list(checksum(path / _TOKENIZER))[-1],
        "counts": {
            split: [asdict(splits[split].counts) for splits in domains.values()] for split in SPLITS
        },
        "parts": [
            [part.name, part.counts.documents, part.counts.tokens, part.checksums] for part in parts
        ],
        "segments": {
            split: [
                [_plain(segment, numbers) for segment in splits[split].segments]
                for splits in domains.values()
            ]
            for split in SPLITS
        },
    }
    write_json(unfinished / _MANIFEST, manifest)
    publish([unfinished / _MANIFEST], path)
    return TokenStore(path)


def parts_folder(store: Path) -> Path:
    """Return where the parts of a store lie."""
    return store.parent / "parts"


def _content_hash(domains: Mapping[str, Mapping[str, DomainSegments]]) -> str:
    listing = [
        [name, split, splits[split].content.count, splits[split].content.hex()]
        for name, splits in domains.items()
        for split in SPLITS
    ]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _plain(segment: Segment, numbers: Mapping[str, int]) -> list[int]:
    counts = segment.counts
    place = numbers[segment.part], segment.first_document, segment.first_token
    return [*place, counts.documents, counts.tokens, counts.num_bytes]


def _stream(path: Path, manifest: dict[str, Any], plain: list[list[int]]) -> TokenStream:
    segments = []
    for part, first_document, first_token, documents, tokens, num_bytes in plain:
        name, part_documents, *_ = manifest["parts"][part]
        counts = StreamCounts(documents=documents, tokens=tokens, num_bytes=num_bytes)
        segments.append(Segment(name, part_documents, first_document, first_token, counts))
    return TokenStream(folder=parts_folder(path), dtype=manifest["dtype"], segments=segments)
