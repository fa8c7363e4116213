"""Optimizer arithmetic on parameters that are spread over ranks (FSDP2, tensor parallelism).

What works element by element works on each rank's own part, a plain tensor: ``local``. What needs
whole matrices (Muon) gets them by an exchange: of n matrices each rank brings its part of all and
receives some of them whole, so that the work, too, is spread over the ranks.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

__all__ = ["Layout", "local", "local_gradient", "map_whole"]


class Layout(NamedTuple):
    """How a matrix lies: parameters of one layout can be exchanged in one stack."""

    shape: torch.Size
    """Of the whole matrix."""
    mesh: Any
    """Ranks that hold its parts; None where each has all of it."""
    placements: tuple[Any, ...]
    """What each dimension of the mesh does to it."""

    @classmethod
    def of(cls, parameter: Tensor) -> "Layout":
        """Return the layout of a parameter, dimensions after the first taken as one."""
        shape = torch.Size((parameter.shape[0], math.prod(parameter.shape[1:])))
        if isinstance(parameter, DTensor):
            return cls(shape, parameter.device_mesh, tuple(parameter.placements))
        return cls(shape, None, ())


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of ``tensor``, sharing its memory; a plain tensor is its own part.

    Example:
        >>> local(torch.ones(2))
        tensor([1., 1.])
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_gradient(parameter: Tensor) -> Tensor:
    """Return this rank's part of the gradient of ``parameter``, as the parameter is parted."""
    gradient = cast(Tensor, parameter.grad)
    if not (isinstance(parameter, DTensor) and isinstance(gradient, DTensor)):
        return local(gradient)
    if gradient.placements != parameter.placements:
        gradient = gradient.redistribute(placements=parameter.placements)
    return gradient.to_local()


def map_whole(
    function: Callable[[Tensor], Tensor], parts: Sequence[Tensor], layout: Layout
) -> tuple[Tensor, ...]:
    """Apply ``function`` to whole matrices and return this rank's parts of what it makes of them.

    Args:
        function: Maps a stack of matrices (any number, rows, columns) to one of the same shape.
        parts: This rank's part of each matrix.
        layout: Of all of them.
    """
    stacked = torch.stack(list(parts))
    if layout.mesh is None:
        return function(stacked).unbind()
    shape = torch.Size((len(parts), *layout.shape))
    whole_placements = [each if each.is_replicate() else Shard(0) for each in layout.placements]
    placements = [each if each.is_replicate() else _behind(each) for each in layout.placements]
    spread = DTensor.from_local(
        stacked,
        layout.mesh,
        placements,
        run_check=False,
        shape=shape,
        stride=(shape[1] * shape[2], shape[2], 1),
    )
    whole = spread.redistribute(placements=whole_placements)
    own = whole.to_local()
    made = DTensor.from_local(
        function(own) if len(own) else own,
        layout.mesh,
        whole_placements,
        run_check=False,
        shape=shape,
        stride=(shape[1] * shape[2], shape[2], 1),
    )
    return made.redistribute(placements=placements).to_local().unbind()


def _behind(placement: Any) -> Any:
    """Return the placement of a matrix that stands behind a new first dimension."""
    if type(placement) is Shard:
        return Shard(placement.dim + 1)
    # both FSDP2 and a tensor-parallel plan split the rows: a shard with a stride
    return type(placement)(placement.dim + 1, split_factor=placement.split_factor)
