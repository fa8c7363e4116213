"""Before parts are written: who writes which, and a copy of them where training is to go on."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from pile_lightning.checkpoint.chunks import Box, assign_writers, check_cover, local_part
from pile_lightning.checkpoint.manifest import PLAIN, Chunk, Manifest, SavedTensor
from pile_lightning.checkpoint.ranks import Group, agree, gather, rank_and_size
from pile_lightning.checkpoint.safetensors_file import (
    Checksum,
    SummingFile,
    dtype_name,
    write_safetensors,
)
from pile_lightning.checkpoint.summary import summary_of
from pile_lightning.checkpoint.swap import clear_leftovers, put_in_place, remove
from pile_lightning.checkpoint.tree import Path, copy_to_memory, name_of, split_tensors
from pile_lightning.whole_file import partial, sync_folder

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
    before: float = 0.0
    """Leftovers of kills beside the folder are removed if they are older than this."""

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
        clear_leftovers(self.folder, before=self.before)
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
    state: dict[str, Any], folder: str | FilePath, *, copy: bool = False, before: float = 0.0
) -> StagedShards:
    """Decide which rank writes which part of ``state``: a collective of all ranks.

    Args:
        state: As ``save_shards`` takes it.
        folder: Where to.
        copy: Copy what this rank writes to memory, so that training may go on before it is written.
        before: Leftovers of kills beside the folder are removed if they are older than this.

    Raises:
        TypeError: For tensors that no safetensors file holds.
        ValueError: Where the ranks hold different states, or no whole one.
    """
    rank, _ = rank_and_size()
    plain, tensors = split_tensors(state)
    held = {path: local_part(tensor) for path, tensor in tensors.items()}
    of_ranks = gather(
        {
            path: _Held(
                shape=tuple(tensor.shape),
                dtype=dtype_name(name_of(path), tensor),
                width=tensor.element_size(),
                box=held[path][0],
                distributed=isinstance(tensor, DTensor),
            )
            for path, tensor in tensors.items()
            # of what is no DTensor, rank 0's is the one that counts
            if rank == 0 or isinstance(tensor, DTensor)
        }
    )
    for other, its in enumerate(of_ranks):
        _check_alike(of_ranks[0], its, other)
    first = of_ranks[0]
    boxes = [[its[path].box if path in its else None for path in first] for its in of_ranks]
    plan = assign_writers(boxes, [each.width for each in first.values()])
    saved, parts = [], {}
    for number, (path, whole) in enumerate(first.items()):
        name, writers = f"{number}:{name_of(path)}", plan[number]
        check_cover(name_of(path), whole.shape, list(writers))
        chunks = [Chunk(box=b, file=_file_of(writer), name=name) for b, writer in writers.items()]
        if rank in writers.values():
            parts[name] = held[path][1]
        saved.append(SavedTensor(path=path, dtype=whole.dtype, shape=whole.shape, chunks=chunks))
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    return StagedShards(
        folder=FilePath(folder),
        tensors=saved,
        parts=copy_to_memory(parts) if copy else parts,
        plain=buffer.getvalue(),
        summary=summary_of(state, FilePath(folder).parent),
        before=before,
    )


@dataclass(frozen=True, kw_only=True)
class _Held:
    """What a rank tells the others of a tensor."""

    shape: tuple[int, ...]
    dtype: str
    width: int
    box: Box | None
    distributed: bool


def _check_alike(first: dict[Path, _Held], other: dict[Path, _Held], rank: int) -> None:
    """Check that a rank holds parts of the same tensors as rank 0."""
    one, two = (
        {(path, each.shape) for path, each in its.items() if each.distributed}
        for its in (first, other)
    )
    if one != two:
        what = ", ".join(sorted(f"{name_of(path)} {shape}" for path, shape in one ^ two)[:4])
        raise ValueError(
            f"ranks 0 and {rank} hold parts of different tensors ({what}); a sharded checkpoint is "
            f"saved of states with the same keys on all ranks"
        )


def _file_of(rank: int) -> str:
    return f"rank-{rank:05}.safetensors"
