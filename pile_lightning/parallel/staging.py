"""Before parts are written: who writes which, and a copy of them where training is to go on."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from pile_lightning.parallel.chunks import assign_writers, check_cover, local_part
from pile_lightning.parallel.manifest import PLAIN, Chunk, Manifest, SavedTensor
from pile_lightning.parallel.ranks import Group, agree, gather, rank_and_size
from pile_lightning.parallel.safetensors_file import (
    Checksum,
    SummingFile,
    dtype_name,
    write_safetensors,
)
from pile_lightning.parallel.summary import summary_of
from pile_lightning.parallel.swap import partial, put_in_place, remove, sync_folder
from pile_lightning.parallel.tree import copy_to_memory, name_of, split_tensors

__all__ = ["StagedShards", "stage_shards"]


@dataclass(frozen=True, kw_only=True)
class StagedShards:
    """What this rank is to write, decided with the others."""

    folder: FilePath
    """Where to."""
    tensors: list[SavedTensor]
    """All tensors and who writes which part."""
    parts: dict[str, Tensor]
    """This rank's share, by name."""
    plain: bytes
    """What is no tensor."""
    summary: dict[str, Any]
    """What a list of checkpoints shows."""

    def write(self, group: Group = None) -> None:
        """Write this rank's share and, with the others, put the folder in place.

        Args:
            group: Of all ranks, to agree over.

        Raises:
            OSError: On all ranks, where one cannot write.
            ValueError: On all ranks, where one fails otherwise.
        """
        rank, _ = rank_and_size(group)
        try:
            agree(lambda: self._make_room() if rank == 0 else None, group)
            files = agree(lambda: self._write_share(rank), group)
            agree(lambda: self._finish(files) if rank == 0 else None, group)
        except Exception:
            if rank == 0:
                remove(partial(self.folder))
            raise

    def _make_room(self) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        remove(partial(self.folder))
        partial(self.folder).mkdir()

    def _write_share(self, rank: int) -> dict[str, Checksum]:
        files = {}
        if self.parts:
            path = partial(self.folder) / _file_of(rank)
            files[path.name] = write_safetensors(path, self.parts)
        if rank == 0:
            with (partial(self.folder) / PLAIN).open("wb") as raw:
                file = SummingFile(raw)
                file.write(self.plain)
                files[PLAIN] = file.sync()
        return files

    def _finish(self, files: Sequence[dict[str, Checksum]]) -> None:
        Manifest(
            tensors={tensor.path: tensor for tensor in self.tensors},
            files={name: sums for each in files for name, sums in each.items()},
            summary=self.summary,
        ).write(partial(self.folder))
        sync_folder(partial(self.folder))
        put_in_place(self.folder)


def stage_shards(
    state: dict[str, Any], folder: str | FilePath, *, copy: bool = False
) -> StagedShards:
    """Decide which rank writes which part of ``state``: a collective of all ranks.

    Args:
        state: As ``save_shards`` takes it.
        folder: Where to.
        copy: Copy what this rank writes to memory, so that training may go on before it is written.

    Raises:
        TypeError: For tensors that no safetensors file holds.
        ValueError: Where the ranks hold different states, or no whole one.
    """
    rank, _ = rank_and_size()
    plain, tensors = split_tensors(state)
    names = {path: f"{n}:{name_of(path)}" for n, path in enumerate(tensors)}
    held = {path: local_part(tensor) for path, tensor in tensors.items()}
    of_ranks = gather(
        [
            # of what is no DTensor, rank 0's is the one that counts
            (path, tuple(t.shape), held[path][0] if rank == 0 or isinstance(t, DTensor) else None)
            for path, t in tensors.items()
        ]
    )
    for other, told in enumerate(of_ranks):
        _check_alike(of_ranks[0], told, other)
    boxes = [[box for _, _, box in told] for told in of_ranks]
    writers = assign_writers(boxes, [t.element_size() for t in tensors.values()])
    saved, parts = [], {}
    for (path, tensor), parts_of_it in zip(tensors.items(), writers, strict=True):
        check_cover(name_of(path), tensor.shape, list(parts_of_it))
        chunks = [
            Chunk(box=box, file=_file_of(writer), name=names[path])
            for box, writer in parts_of_it.items()
        ]
        if rank in parts_of_it.values():
            parts[names[path]] = held[path][1]
        dtype = dtype_name(name_of(path), tensor)
        saved.append(SavedTensor(path=path, dtype=dtype, shape=tuple(tensor.shape), chunks=chunks))
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    return StagedShards(
        folder=FilePath(folder),
        tensors=saved,
        parts=copy_to_memory(parts) if copy else parts,
        plain=buffer.getvalue(),
        summary=summary_of(state),
    )


def _check_alike(first: list[Any], other: list[Any], rank: int) -> None:
    """Check that a rank holds parts of the same tensors as rank 0."""
    if [told[:2] for told in first] == [told[:2] for told in other]:
        return
    differ = {(path, shape) for path, shape, _ in first} ^ {(p, s) for p, s, _ in other}
    what = ", ".join(sorted(f"{name_of(path)} {shape}" for path, shape in differ)[:4])
    raise ValueError(
        f"ranks 0 and {rank} hold different tensors or orders of them ({what or 'order'}); a "
        f"sharded checkpoint is saved of states with the same keys on all ranks"
    )


def _file_of(rank: int) -> str:
    return f"rank-{rank:05}.safetensors"
