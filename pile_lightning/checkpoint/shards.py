"""Sharded checkpoints: every rank writes what it holds, and any other set of ranks reads it."""

import io
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path as FilePath
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from pile_lightning.checkpoint.chunks import Box, local_part, overlap
from pile_lightning.checkpoint.data_only import load_data
from pile_lightning.checkpoint.manifest import PLAIN, Manifest, SavedTensor
from pile_lightning.checkpoint.ranks import agree, rank_and_size
from pile_lightning.checkpoint.safetensors_file import DTYPES
from pile_lightning.checkpoint.staging import stage_shards
from pile_lightning.checkpoint.swap import standing
from pile_lightning.checkpoint.tree import name_of, place, replace_values, split_tensors

__all__ = ["load_shards", "read_plain", "read_whole", "save_shards"]


def save_shards(state: dict[str, Any], folder: str | FilePath) -> None:
    """Write ``state`` as a sharded checkpoint: a collective of all ranks, or alone without them.

    The folder is the old one or the new one, whole, whenever the processes are killed. Of replicas,
    one rank writes; of tensors that are no DTensors and of all other values, rank 0 does.

    Args:
        state: Dictionaries and lists of tensors, DTensors and plain values, alike on all ranks.
        folder: Where to; what is there is replaced.

    Raises:
        OSError: On all ranks, where one cannot write; what was there is untouched.
        ValueError: Where the ranks hold different states, or no whole one.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as run:
        ...     save_shards({"step": 3, "state": {0: torch.ones(2)}}, f"{run}/last.ckpt")
        ...     read_whole(f"{run}/last.ckpt")
        {'step': 3, 'state': {0: tensor([1., 1.])}}
    """
    stage_shards(state, folder).write()


def load_shards(state: dict[str, Any], folder: str | FilePath) -> None:
    """Fill ``state`` from a sharded checkpoint, whoever wrote it: a collective, or alone.

    Tensors and the parts of DTensors are filled in place, and other values become those that were
    saved. Each rank reads what overlaps its own parts, after the ranks together have checked
    every file. Keys of the checkpoint that ``state`` has not at its top are left out.

    Args:
        state: Of the structure that was saved, at any placement.
        folder: The checkpoint.

    Raises:
        ValueError: On all ranks, where the checkpoint is damaged, incomplete, or of another model.
    """
    rank, size = rank_and_size()
    folder = standing(FilePath(folder))

    def check() -> Manifest:
        if not folder.exists():
            raise FileNotFoundError(f"there is no checkpoint {folder}; name one that exists")
        manifest = Manifest.read(folder)
        manifest.verify(folder, share=slice(rank, None, size))
        return manifest

    manifest = agree(check)[rank]
    agree(lambda: _fill(state, folder, manifest))


def read_whole(
    folder: str | FilePath, *, without: Collection[str] = (), verified: bool = False
) -> dict[str, Any]:
    """Return the state of a sharded checkpoint with whole tensors, in this process alone.

    Args:
        folder: The checkpoint.
        without: Keys at the top of the state to leave out.
        verified: Whether its files have been checked just now.

    Raises:
        ValueError: Where the checkpoint is damaged or incomplete.
    """
    folder = standing(FilePath(folder))
    manifest = Manifest.read(folder)
    if not verified:
        manifest.verify(folder)
    state: dict[str, Any] = read_plain(folder)
    dtypes = {name: dtype for dtype, name in DTYPES.items()}
    with _Parts(folder) as parts:
        for path, saved in manifest.tensors.items():
            if path[0] not in without:
                tensor = torch.empty(saved.shape, dtype=dtypes[saved.dtype])
                parts.read(saved, Box((0,) * tensor.ndim, saved.shape), tensor)
                try:
                    place(state, path, tensor)
                except (KeyError, IndexError, TypeError):
                    raise ValueError(
                        f"{folder} is damaged: {PLAIN} has no place for {name_of(path)}; take "
                        f"another checkpoint"
                    ) from None
    return {key: value for key, value in state.items() if key not in without}


def _fill(state: dict[str, Any], folder: FilePath, manifest: Manifest) -> None:
    _, tensors = split_tensors(state)
    _check_keys(state, tensors, manifest, folder)
    with _Parts(folder) as parts:
        for path, tensor in tensors.items():
            box, local = local_part(tensor)
            if box is not None:
                parts.read(manifest.tensors[path], box, local)
    replace_values(state, read_plain(folder))


def _check_keys(
    state: dict[str, Any], tensors: dict[Any, Tensor], manifest: Manifest, folder: FilePath
) -> None:
    there = {path for path in manifest.tensors if path[0] in state}
    for paths, problem in (
        (tensors.keys() - there, "lacks"),
        (there - tensors.keys(), "has what the model or its optimizer has not:"),
    ):
        if paths:
            names = sorted(map(name_of, paths))
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(
                f"{folder} {problem} {', '.join(names[:3])}{more}; load it with the network and "
                f"optimizer that it was saved with"
            )
    for path, tensor in tensors.items():
        if tuple(tensor.shape) != manifest.tensors[path].shape:
            raise ValueError(
                f"{name_of(path)} is {tuple(tensor.shape)} here and {manifest.tensors[path].shape} "
                f"in {folder}; load it with the network that it was saved with"
            )


def read_plain(folder: FilePath) -> Any:
    """Return what is saved beside the tensors; in the place of each tensor is None."""
    return load_data(io.BytesIO((folder / PLAIN).read_bytes()), name=folder / PLAIN)


class _Parts(ExitStack):
    """Reads parts of tensors; each file is opened once."""

    def __init__(self, folder: FilePath) -> None:
        super().__init__()
        self.folder = folder
        self._files: dict[str, Any] = {}

    def read(self, saved: SavedTensor, box: Box, target: Tensor) -> None:
        """Fill ``target`` with the part ``box`` of a tensor."""
        for chunk in saved.chunks:
            shared = overlap(box, chunk.box)
            if shared is None:
                continue
            file = self._open(chunk.file)
            if shared == chunk.box:
                part = file.get_tensor(chunk.name)
            else:
                part = file.get_slice(chunk.name)[shared.inside(chunk.box)]
            target[shared.inside(box)].copy_(part)

    def _open(self, name: str) -> Any:
        if name not in self._files:
            file = safe_open(self.folder / name, framework="pt")
            self._files[name] = self.enter_context(file)
        return self._files[name]
