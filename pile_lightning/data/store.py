"""The prepared token store: for each split and domain, one memory-mapped stream of documents.

A stream is every document as the start token and its tokens, one after the other, in the order of
the source. Beside it lie each document's end in the stream and its size in UTF-8 bytes.
``manifest.json`` holds the counts and comes last: a folder without it is no store. Nothing in a
store depends on where it lies.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pile_lightning.data.tokenizers import Tokenizer

__all__ = ["FORMAT", "SPLITS", "StreamCounts", "TokenStore", "TokenStoreWriter", "TokenStream"]

FORMAT = 2
"""Version of the layout; a store of another version is built again."""
SPLITS = ("train", "val")
"""The documents to learn from, and those held out."""

_MANIFEST, _TOKENIZER = "manifest.json", "tokenizer.json"
_DOCUMENT = np.dtype([("end", np.int64), ("num_bytes", np.int64)])


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


@dataclass(frozen=True, kw_only=True)
class TokenStream:
    """One domain's documents of one split; each process opens its files when it first reads."""

    stem: Path
    """Path of the stream's files, without their suffixes."""
    dtype: str
    """Type of a token."""
    counts: StreamCounts

    @cached_property
    def tokens(self) -> npt.NDArray[Any]:
        """Token ids of all documents (tokens,)."""
        return _map(self.stem.with_suffix(".tokens"), np.dtype(self.dtype))

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """Where each document ends in the stream (documents,)."""
        return np.ascontiguousarray(self._documents["end"])

    @cached_property
    def num_bytes(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of each document (documents,)."""
        return np.ascontiguousarray(self._documents["num_bytes"])

    @property
    def _documents(self) -> npt.NDArray[Any]:
        return _map(self.stem.with_suffix(".documents"), _DOCUMENT)

    def documents(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the tokens of each document, without its start token."""
        start = 0
        for end in self.ends.tolist():
            yield self.tokens[start + 1 : end]
            start = end

    def __getstate__(self) -> dict[str, Any]:
        # a memory map would be pickled as its content
        opened = ("tokens", "ends", "num_bytes")
        return {key: value for key, value in self.__dict__.items() if key not in opened}


class TokenStore:
    """A finished store, read only.

    Args:
        path: Its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: dict[str, Any] = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        self.domains: tuple[str, ...] = tuple(self.manifest["domains"])
        self.fingerprint: dict[str, Any] = self.manifest["fingerprint"]
        self.exact_bytes: bool = self.manifest["exact_bytes"]
        """Whether the tokenizer's table of bytes adds up to every document's size."""

    @staticmethod
    def exists(path: Path) -> bool:
        """Return whether a finished store lies at ``path``."""
        return (path / _MANIFEST).is_file()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens."""
        return Tokenizer.load(self.path / _TOKENIZER)

    def stream(self, split: str, domain: int) -> TokenStream:
        """Return the documents of a split and domain."""
        return TokenStream(
            stem=self.path / f"{split}-{domain:04d}",
            dtype=self.manifest["dtype"],
            counts=StreamCounts(**self.manifest["counts"][split][domain]),
        )

    def streams(self, split: str) -> tuple[TokenStream, ...]:
        """Return the streams of a split, one for each domain."""
        return tuple(self.stream(split, domain) for domain in range(len(self.domains)))

    def counts(self, split: str) -> StreamCounts:
        """Return how much a split holds."""
        return sum((stream.counts for stream in self.streams(split)), StreamCounts())


class TokenStoreWriter:
    """Writes a store, document by document. Only ``finish`` makes it one.

    Args:
        path: An empty folder.
        domains: Their names.
        tokenizer: What encodes the documents.
    """

    def __init__(self, path: Path, domains: Sequence[str], tokenizer: Tokenizer) -> None:
        self.path, self.domains, self.tokenizer = path, domains, tokenizer
        self.table = tokenizer.token_num_bytes
        self._streams = {
            (split, domain): _StreamWriter(path / f"{split}-{domain:04d}")
            for split in SPLITS
            for domain in range(len(domains))
        }

    def add(
        self, split: str, domain: int, ids: npt.NDArray[Any], *, num_bytes: int, digest: bytes
    ) -> None:
        """Append a document, given its tokens without the start token."""
        if (ids == self.tokenizer.start_id).any():
            raise ValueError(
                f"the tokenizer encoded ordinary text to its start token (id "
                f"{self.tokenizer.start_id}), which has to mark documents; choose another tokenizer"
            )
        if self.table is not None and self.table[ids].sum() != num_bytes:
            self.table = None
        start = np.array([self.tokenizer.start_id], dtype=self.tokenizer.dtype)
        self._streams[split, domain].add(np.concatenate([start, ids]), num_bytes, digest)

    def finish(self, *, fingerprint: dict[str, Any], skipped: dict[str, int]) -> None:
        """Write the manifest.

        Args:
            fingerprint: How the store was made, in plain data; the content's hash is added to it.
            skipped: How many documents could not be read, by reason.
        """
        self.tokenizer.save(self.path / _TOKENIZER)
        content = hashlib.sha256()
        for stream in self._streams.values():
            stream.close()
            content.update(stream.content.digest())
        manifest = {
            "format": FORMAT,
            "domains": list(self.domains),
            "dtype": str(np.dtype(self.tokenizer.dtype)),
            "exact_bytes": self.table is not None,
            "fingerprint": fingerprint
            | {"tokenizer": self.tokenizer.fingerprint(), "content": content.hexdigest()},
            "skipped": skipped,
            "counts": {
                split: [
                    asdict(self._streams[split, domain].counts)
                    for domain in range(len(self.domains))
                ]
                for split in SPLITS
            },
        }
        with (self.path / _MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Close the files, finished or not."""
        for stream in self._streams.values():
            stream.close()

    def counts(self, split: str) -> StreamCounts:
        """Return how much a split holds so far."""
        streams = (self._streams[split, domain] for domain in range(len(self.domains)))
        return sum((stream.counts for stream in streams), StreamCounts())


class _StreamWriter:
    def __init__(self, stem: Path) -> None:
        self._tokens: BinaryIO = stem.with_suffix(".tokens").open("wb")
        self._documents: BinaryIO = stem.with_suffix(".documents").open("wb")
        self.counts = StreamCounts()
        self.content = hashlib.sha256()

    def add(self, tokens: npt.NDArray[Any], num_bytes: int, digest: bytes) -> None:
        self.counts += StreamCounts(documents=1, tokens=len(tokens), num_bytes=num_bytes)
        self._tokens.write(tokens.tobytes())
        document = np.array([(self.counts.tokens, num_bytes)], dtype=_DOCUMENT)
        self._documents.write(document.tobytes())
        self.content.update(digest)

    def close(self) -> None:
        for file in (self._tokens, self._documents):
            if not file.closed:
                file.flush()
                os.fsync(file.fileno())
                file.close()


def _map(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if path.stat().st_size == 0:  # nothing to map
        return np.empty(0, dtype)
    # a plain array over the map: slices of np.memmap itself cost 1 us more
    return np.asarray(np.memmap(path, dtype, mode="r")).view(np.ndarray)
