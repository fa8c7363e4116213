"""Parts of a tensor: which one a rank holds, who writes it, and what two of them share.

A part is a box: where it begins in the whole tensor, and its size along each dimension. FSDP2,
tensor parallelism and both at once cut tensors into boxes, so a file that says where its boxes lie
can be read by any other cut.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

__all__ = ["Box", "assign_writers", "check_cover", "local_part", "overlap"]


class Box(NamedTuple):
    """A part of a tensor."""

    offsets: tuple[int, ...]
    """Where it begins, along each dimension."""
    sizes: tuple[int, ...]
    """How long it is, along each dimension."""

    @property
    def num_elements(self) -> int:
        """Elements in it."""
        return torch.Size(self.sizes).numel()

    def inside(self, outer: "Box") -> tuple[slice, ...]:
        """Return the slices of ``outer`` that are this part of the whole tensor."""
        return tuple(
            slice(start - base, start - base + size)
            for start, size, base in zip(self.offsets, self.sizes, outer.offsets, strict=True)
        )


def local_part(tensor: Tensor) -> tuple[Box | None, Tensor]:
    """Return which part of ``tensor`` this process holds (None for none of it), and that part.

    Raises:
        ValueError: For a DTensor whose parts are still to be summed.
    """
    if not isinstance(tensor, DTensor):
        if not tensor.numel():
            return None, tensor
        return Box((0,) * tensor.ndim, tuple(tensor.shape)), tensor.detach()
    if any(placement.is_partial() for placement in tensor.placements):
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} is placed {tensor.placements}: its parts are "
            f"terms of a sum; redistribute it before it is saved"
        )
    local = tensor.to_local().detach()
    if tensor.device_mesh.get_coordinate() is None or not local.numel():
        return None, local
    (chunk,) = tensor.__create_chunk_list__()  # type: ignore[no-untyped-call]
    box = Box(tuple(chunk.offsets), tuple(chunk.sizes))
    assert box.sizes == tuple(local.shape)
    return box, local


def overlap(one: Box, two: Box) -> Box | None:
    """Return what two parts of a tensor share, or None.

    Example:
        >>> overlap(Box((0, 0), (4, 2)), Box((3, 0), (4, 1)))
        Box(offsets=(3, 0), sizes=(1, 1))
    """
    starts = tuple(map(max, one.offsets, two.offsets))
    ends = [
        min(a + m, b + n)
        for a, m, b, n in zip(one.offsets, one.sizes, two.offsets, two.sizes, strict=True)
    ]
    sizes = tuple(end - start for start, end in zip(starts, ends, strict=True))
    return Box(starts, sizes) if all(size > 0 for size in sizes) else None


def assign_writers(
    held: Sequence[Sequence[Box | None]], bytes_per_element: Sequence[int]
) -> list[dict[Box, int]]:
    """Let each part be written once, by a rank that holds it and has written least so far.

    Args:
        held: By rank, its part of each tensor, or None.
        bytes_per_element: Of each tensor.

    Returns:
        For each tensor, its parts and the rank that writes each.
    """
    written = [0] * len(held)
    plan = []
    for number, width in enumerate(bytes_per_element):
        holders: dict[Box, list[int]] = {}
        for rank, boxes in enumerate(held):
            if (box := boxes[number]) is not None:
                holders.setdefault(box, []).append(rank)
        writers = {}
        for box, ranks in holders.items():
            writers[box] = min(ranks, key=lambda rank: written[rank])
            written[writers[box]] += width * box.num_elements
        plan.append(writers)
    return plan


def check_cover(name: str, shape: Sequence[int], boxes: Sequence[Box]) -> None:
    """Check that parts make up a tensor, each element once.

    Raises:
        ValueError: Where they do not.
    """
    elements = torch.Size(shape).numel()
    whole = sum(box.num_elements for box in boxes) == elements
    for dim, length in enumerate(shape if boxes else ()):
        # cuts run through the whole tensor: along a dimension, parts follow one another
        intervals = sorted({(box.offsets[dim], box.sizes[dim]) for box in boxes})
        ends = [0, *(start + size for start, size in intervals)]
        whole &= ends[:-1] == [start for start, _ in intervals] and ends[-1] == length
    if not whole:
        raise ValueError(
            f"the ranks hold {len(boxes)} parts of {name}, which do not make up its shape "
            f"{tuple(shape)}; shard it in contiguous parts, as fully_shard and "
            f"parallelize_module do"
        )
