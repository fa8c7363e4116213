"""What a sharded checkpoint says of itself: which parts are where, and that it is whole.

A sharded checkpoint is a folder:

    rank-00000.safetensors ...  the parts that each rank wrote
    plain.pt                    all that is no tensor, readable with ``weights_only=True``
    manifest.json               tensors and their parts, a summary, the checksum of each file above
    COMPLETE                    the checksum of ``manifest.json``, written last

``torch.distributed.checkpoint`` keeps its index as a pickle, which could run code when it is read,
and its safetensors format holds neither numbers nor the shapes of whole tensors.
"""

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from pile_lightning.checkpoint.chunks import Box
from pile_lightning.checkpoint.safetensors_file import Checksum, checksum
from pile_lightning.checkpoint.tree import Path
from pile_lightning.file_names import check_file_name
from pile_lightning.whole_file import write_file

__all__ = ["COMPLETE", "MANIFEST", "PLAIN", "Chunk", "Manifest", "SavedTensor"]

COMPLETE = "COMPLETE"
MANIFEST = "manifest.json"
PLAIN = "plain.pt"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A part of a tensor in a file."""

    box: Box
    """Which part."""
    file: str
    """Name of the file in the folder."""
    name: str
    """Name of the part in the file."""


@dataclass(frozen=True, kw_only=True)
class SavedTensor:
    """A whole tensor and where its parts are."""

    path: Path
    """Where it belongs in the state."""
    dtype: str
    """As safetensors names it."""
    shape: tuple[int, ...]
    """Of the whole."""
    chunks: list[Chunk]
    """Its parts; together they are the whole."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is known of a sharded checkpoint without opening its other files."""

    tensors: dict[Path, SavedTensor]
    """By their path."""
    files: dict[str, Checksum]
    """By name, all but the manifest's own."""
    summary: dict[str, Any] = field(default_factory=dict)
    """What a list of checkpoints shows."""

    def write(self, folder: FilePath) -> None:
        """Write the manifest and, when it is on the disk, the mark of completeness."""
        body = {
            "format": _FORMAT,
            "summary": self.summary,
            "files": self.files,
            "tensors": [
                {
                    "path": tensor.path,
                    "dtype": tensor.dtype,
                    "shape": tensor.shape,
                    "chunks": [[*c.box, c.file, c.name] for c in tensor.chunks],
                }
                for tensor in self.tensors.values()
            ],
        }
        data = json.dumps(body, separators=(",", ":")).encode()
        write_file(folder / MANIFEST, data)
        write_file(folder / COMPLETE, _mark(data))

    @classmethod
    def read(cls, folder: FilePath) -> "Manifest":
        """Read the manifest of a complete checkpoint.

        Raises:
            ValueError: Where the checkpoint is incomplete or damaged.
        """
        try:
            mark, data = (folder / COMPLETE).read_bytes(), (folder / MANIFEST).read_bytes()
        except FileNotFoundError as error:
            raise ValueError(
                f"{folder} is no complete checkpoint: it has no {FilePath(error.filename).name}; "
                f"take another checkpoint"
            ) from None
        if mark != _mark(data):
            raise ValueError(_damaged(folder, MANIFEST))
        try:
            body = json.loads(data)
            if body["format"] == _FORMAT:
                return cls._of(body, folder)
        except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError):
            raise ValueError(_damaged(folder, MANIFEST)) from None
        raise ValueError(
            f"{folder} is in format {body['format']}, and this release reads {_FORMAT}; use "
            f"the release that wrote it"
        )

    @classmethod
    def _of(cls, body: dict[str, Any], folder: FilePath) -> "Manifest":
        files = {
            check_file_name(name, of=f"a file of {folder}"): Checksum(*sums)
            for name, sums in body["files"].items()
        }
        tensors = [
            SavedTensor(
                path=tuple(entry["path"]),
                dtype=entry["dtype"],
                shape=tuple(entry["shape"]),
                chunks=[
                    Chunk(box=Box(tuple(offsets), tuple(sizes)), file=file, name=name)
                    for offsets, sizes, file, name in entry["chunks"]
                ],
            )
            for entry in body["tensors"]
        ]
        for part in (part for tensor in tensors for part in tensor.chunks):
            if part.file not in files:  # whose checksum is not known
                raise ValueError(
                    f"{folder} is damaged: {MANIFEST} has a part in {part.file!r}, which it does "
                    f"not list; take another checkpoint"
                )
        return cls(
            tensors={tensor.path: tensor for tensor in tensors},
            files=files,
            summary=dict(body["summary"]),
        )

    def verify(
        self,
        folder: FilePath,
        *,
        share: slice = slice(None),
        on_bytes: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Check that the files of the folder are those that were written.

        Args:
            folder: The checkpoint.
            share: Which of the files, in the order of their names.
            on_bytes: Is told how many more bytes have been read.

        Raises:
            ValueError: Where a file is missing or damaged; it names the file.
        """
        for name in sorted(self.files)[share]:
            expected = self.files[name]
            path = folder / name
            if not path.is_file() or path.stat().st_size != expected.size:
                raise ValueError(_damaged(folder, name))
            if _follow(checksum(path), on_bytes) != expected:
                raise ValueError(_damaged(folder, name))


def _follow(sums: Iterator[Checksum], on_bytes: Callable[[int], object]) -> Checksum:
    last = Checksum(0, 0)
    for each in sums:
        on_bytes(each.size - last.size)
        last = each
    return last


def _mark(data: bytes) -> bytes:
    return f"{MANIFEST} {len(data)} {zlib.crc32(data):08x}\n".encode()


def _damaged(folder: FilePath, name: str) -> str:
    return (
        f"{folder} is damaged: {name} is not what was written (its size or checksum differs); take "
        f"another checkpoint"
    )
