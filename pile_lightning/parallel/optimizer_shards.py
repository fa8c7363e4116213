"""Room for what a sharded checkpoint has of optimizers that have not taken a step yet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pile_lightning.checkpoint.manifest import Manifest
from pile_lightning.checkpoint.safetensors_file import DTYPES
from pile_lightning.checkpoint.shards import read_plain
from pile_lightning.checkpoint.swap import standing
from pile_lightning.checkpoint.tree import place

__all__ = ["room_for_optimizers"]

_KEY = "optimizer_states"


def room_for_optimizers(folder: str | Path, optimizers: Sequence[Optimizer]) -> list[Any]:
    """Return the optimizers' states of a checkpoint, with tensors that are still to be filled.

    What is shaped like its parameter is spread over ranks as the parameter is.

    Raises:
        ValueError: For a checkpoint that is incomplete, or of another number of optimizers.
    """
    place_of = standing(Path(folder))
    states: list[Any] = read_plain(place_of)[_KEY]
    if len(states) != len(optimizers):
        raise ValueError(
            f"{folder} has {len(states)} optimizers, and this run {len(optimizers)}; resume with "
            f"the module that it was saved by"
        )
    parameters = [[p for group in o.param_groups for p in group["params"]] for o in optimizers]
    dtypes = {name: dtype for dtype, name in DTYPES.items()}
    for path, saved in Manifest.read(place_of).tensors.items():
        if path[0] == _KEY:
            like = _parameter(parameters, path)
            dtype = dtypes[saved.dtype]
            empty = (
                torch.empty(saved.shape, dtype=dtype)
                if like is None or tuple(like.shape) != saved.shape
                else torch.empty_like(like, dtype=dtype, requires_grad=False)
            )
            place(states, path[1:], empty)
    return states


def _parameter(parameters: list[list[Tensor]], path: tuple[str | int, ...]) -> Tensor | None:
    """Return the parameter that a path (key, optimizer, "state", number, name) is of, or None."""
    if len(path) < 4 or path[2] != "state":
        return None
    of_optimizer, number = parameters[int(path[1])], int(path[3])
    return of_optimizer[number] if number < len(of_optimizer) else None
