"""The bytes of all live tensors while code runs, by what they are for.

A dispatch mode sees every operation, forward and backward, and what it returns. Each new storage is
entered under the kind that is current, and struck out when it dies. Works the same on tensors with
values and on fake ones, which have sizes and no memory.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

__all__ = ["Kind", "LiveBytes"]


class Kind(IntEnum):
    """What a tensor is for."""

    WEIGHTS = 0
    """Parameters and buffers."""
    SPLIT_WEIGHTS = 1
    """Parameters that tensor parallelism splits."""
    GRADIENTS = 2
    """Gradients of parameters, finished."""
    ROOT_GRADIENTS = 3
    """Those of parameters that are in no block."""
    STATE = 4
    """What the optimizer keeps."""
    CASTS = 5
    """Copies of parameters in autocast's type that the backward needs."""
    SPLIT_CASTS = 6
    """Those of parameters that tensor parallelism splits."""
    ACTIVATIONS = 7
    """What the network's forward made."""
    SPLIT_ACTIVATIONS = 8
    """What it made where tensor parallelism has features apart: heads and hidden features."""
    HEAD = 9
    """Logits and the loss, with the gradients that a chunked head makes in the forward."""
    OTHER = 10
    """The batch, and what the backward and the optimizer hold for a moment."""


_CASTS_OF: dict[Kind | None, Kind] = {
    Kind.WEIGHTS: Kind.CASTS,
    Kind.SPLIT_WEIGHTS: Kind.SPLIT_CASTS,
}


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the bytes of live storages by kind, and a curve of them.

    Args:
        casts_in_kernels: Count what a CPU's kernels hold while they compute in mixed types.

    Example:
        >>> with LiveBytes() as live, live.kind(Kind.HEAD):
        ...     kept = torch.zeros(1000).add(1)
        >>> live.now[Kind.HEAD], max(point[Kind.HEAD] for point in live.curve)
        (4000, 8000)
    """

    def __init__(self, *, casts_in_kernels: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.casts_in_kernels = casts_in_kernels
        self.now = [0] * len(Kind)
        """Bytes by kind."""
        self.curve: list[tuple[int, ...]] = []
        """``now`` after every operation that made a storage."""
        self._current = Kind.OTHER
        self._found: dict[int, tuple[list[int], weakref.ref[Any]]] = {}

    @contextmanager
    def kind(self, kind: Kind) -> Iterator[None]:
        """Enter new storages under ``kind``."""
        before = self.switch(kind)
        try:
            yield
        finally:
            self._current = before

    def switch(self, kind: Kind) -> Kind:
        """Enter new storages under ``kind`` from now on; return under which they went before."""
        before, self._current = self._current, kind
        return before

    def kind_of(self, tensor: Tensor) -> Kind | None:
        """Return under which kind a tensor's storage stands, or None where it is not known."""
        entry = self._found.get(id(tensor.untyped_storage()))
        return None if entry is None else Kind(entry[0][0])

    def enter(self, tensor: Tensor, kind: Kind) -> None:
        """Enter a tensor's storage under ``kind``, also if it stood under another."""
        storage = tensor.untyped_storage()
        entry = self._found.get(id(storage))
        if entry is None:
            label = [int(kind), storage.nbytes()]
            gone = partial(self._forget, id(storage), label)
            self._found[id(storage)] = label, weakref.ref(storage, gone)
        else:
            label = entry[0]
            self.now[label[0]] -= label[1]
            label[0] = int(kind)
        self.now[label[0]] += label[1]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        new = False
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in self._found:
                self.enter(tensor, self._kind_of_result(func, args))
                new = True
        unseen = _cast_in_kernel(func, args, kwargs or {}, result) if self.casts_in_kernels else 0
        if new or unseen:
            point = list(self.now)
            point[self._current] += unseen
            self.curve.append(tuple(point))
        return result

    def _kind_of_result(self, func: Any, args: tuple[Any, ...]) -> Kind:
        if func is torch.ops.aten._to_copy.default:
            return _CASTS_OF.get(self.kind_of(args[0]), self._current)
        return self._current

    def _forget(self, key: int, label: list[int], _: Any) -> None:
        self.now[label[0]] -= label[1]
        del self._found[key]


def _cast_in_kernel(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Return the bytes that a CPU's kernel for mixed types holds beside arguments and result.

    It computes in the common type, and casts what has another one before it starts or after it
    ends, as a whole; a GPU's does so number by number.
    """
    if torch.Tag.pointwise not in func.tags or not isinstance(result, Tensor):
        return 0
    inputs = [tensor for tensor in args if isinstance(tensor, Tensor)]
    if func in _COPIES or not inputs:
        return 0
    common = max(
        (t.dtype for t in inputs), key=lambda dtype: (dtype.is_floating_point, dtype.itemsize)
    )
    if not common.is_floating_point or not result.dtype.is_floating_point:
        return 0
    written = kwargs.get("out")
    outputs = [result] if written is None and not any(result is t for t in inputs) else []
    outputs += [written] if isinstance(written, Tensor) else []
    others = [t for t in (*inputs, *outputs) if t.ndim and t.dtype != common]
    return sum(tensor.numel() * common.itemsize for tensor in others)


_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
