"""A checkpoint is a tree of dictionaries and lists: its tensors by path, and the rest as it is."""

import copy
from collections.abc import Container, Iterator, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

__all__ = [
    "Path",
    "at",
    "copy_to_memory",
    "name_of",
    "place",
    "replace_values",
    "split_tensors",
    "without_excess",
]

T = TypeVar("T")

Path = tuple[str | int, ...]
"""Keys and positions on the way to a value, such as ``("optimizer_states", 0, "state", 3)``."""


def split_tensors(state: Any) -> tuple[Any, dict[Path, Tensor]]:
    """Return ``state`` with None in the place of each tensor, and the tensors by path.

    Raises:
        TypeError: For a tensor under a key that is neither a string nor an integer, or in a tuple.

    Example:
        >>> import torch
        >>> plain, tensors = split_tensors({"step": 3, "state": {7: [torch.ones(2)]}})
        >>> plain, list(tensors)
        ({'step': 3, 'state': {7: [None]}}, [('state', 7, 0)])
    """
    tensors: dict[Path, Tensor] = {}
    return _split(state, (), tensors), tensors


def _split(node: Any, path: Path, tensors: dict[Path, Tensor]) -> Any:
    if isinstance(node, Tensor):
        tensors[path] = node
        return None
    if isinstance(node, Mapping):
        found = len(tensors)
        plain = {key: _split(value, (*path, key), tensors) for key, value in node.items()}
        if len(tensors) == found:
            return node  # of whatever kind it is
        for key in plain:
            if type(key) not in (str, int):
                raise TypeError(
                    f"{name_of(path)} has the key {key!r} of type {type(key).__name__}; tensors "
                    f"are saved under strings and integers, so use one of these"
                )
        return plain
    if isinstance(node, list):
        return [_split(value, (*path, i), tensors) for i, value in enumerate(node)]
    if isinstance(node, tuple):
        found = len(tensors)
        for value in node:
            _split(value, path, tensors)
        if len(tensors) > found:
            raise TypeError(
                f"{name_of(path)} is a tuple that holds tensors, which could not be put back in "
                f"place; make it a list"
            )
    return node


def copy_to_memory(state: T) -> T:
    """Copy dictionaries, lists and tensors, so that ``state`` may change meanwhile.

    Tensors that share their memory, as tied weights do, share it in the copy.
    """
    return cast(T, _copy(state, {}, None))


def without_excess(state: T) -> T:
    """Copy what would drag more into a file than it shows: tensors that are parts of larger ones.

    ``torch.save`` writes the whole memory that a tensor lies in. Where all of it is in ``state``,
    part by part, nothing is copied.

    Example:
        >>> import torch
        >>> part = torch.zeros(100, 2)[3]
        >>> without_excess({"weight": part})["weight"].untyped_storage().nbytes()
        8
    """
    shown: dict[int, dict[object, int]] = {}
    sizes: dict[int, int] = {}
    for tensor in _tensors(state):
        place = _storage(tensor)
        if place is not None:
            sizes[place] = tensor.untyped_storage().nbytes()
            shown.setdefault(place, {})[_key(tensor)] = tensor.numel() * tensor.element_size()
    excessive = {place for place, parts in shown.items() if sum(parts.values()) < sizes[place]}
    return cast(T, _copy(state, {}, excessive)) if excessive else state


def _tensors(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _tensors(value)
    elif type(node) in (list, tuple):
        for value in node:
            yield from _tensors(value)


def _storage(tensor: Tensor) -> int | None:
    """Return where the memory of a plain tensor begins; of others only they know."""
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided
    return tensor.untyped_storage().data_ptr() or None if plain else None


def _key(tensor: Tensor) -> object:
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)


def _copy(node: Any, copied: dict[object, Tensor], of: Container[int] | None) -> Any:
    """Copy what lies in the memories ``of``, or everything."""
    if isinstance(node, Tensor):
        if of is not None and _storage(node) not in of:
            return node
        key = _key(node)
        if key not in copied or not node.numel():
            copied[key] = node.detach().to("cpu", copy=True)
        return copied[key]
    if isinstance(node, dict):
        twin = copy.copy(node)  # of its kind, with its attributes
        twin.update({key: _copy(value, copied, of) for key, value in node.items()})
        return twin
    if isinstance(node, list | tuple) and type(node) in (list, tuple):
        return type(node)(_copy(value, copied, of) for value in node)
    return node


def at(tree: Any, path: Path) -> Any:
    """Return what lies at ``path``."""
    for key in path:
        tree = tree[key]
    return tree


def place(tree: Any, path: Path, value: Any) -> Any:
    """Put ``value`` at ``path`` of ``tree`` and return the tree."""
    if not path:
        return value
    at(tree, path[:-1])[path[-1]] = value
    return tree


def replace_values(state: Any, saved: Any, path: Path = ()) -> None:
    """Replace what is no tensor in ``state`` by what ``saved`` has in its place.

    Raises:
        ValueError: For a key that ``saved`` has not.
    """
    entries = list(state.items() if isinstance(state, Mapping) else enumerate(state))
    for key, value in entries:
        here = (*path, key)
        try:
            counterpart = saved[key]
        except (KeyError, IndexError, TypeError):
            raise ValueError(
                f"the checkpoint has no {name_of(here)}; give the model and the optimizer the "
                f"settings that they were saved with"
            ) from None
        if isinstance(value, Mapping) or (isinstance(value, list) and _holds_more(value)):
            replace_values(value, counterpart, here)
        elif not isinstance(value, Tensor):
            state[key] = counterpart


def _holds_more(values: list[Any]) -> bool:
    return any(isinstance(value, Tensor | Mapping | list) for value in values)


def name_of(path: Path) -> str:
    """Write a path as messages and files name it.

    Example:
        >>> name_of(("optimizer_states", 0, "state", 3))
        'optimizer_states/0/state/3'
    """
    return "/".join(map(str, path)) or "the state"
