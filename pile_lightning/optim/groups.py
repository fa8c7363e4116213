"""Sort a network's parameters by what they are: tables, matrices and the rest."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn
from torch.optim import Optimizer

__all__ = ["ParameterRoles", "describe_groups", "parameter_roles"]


class ParameterRoles(NamedTuple):
    """The trainable parameters of a network, each in exactly one list."""

    lookups: list[nn.Parameter]
    """Embeddings whose module calls itself a ``lookup``: their rows are added, never multiplied."""
    tables: list[nn.Parameter]
    """Other embeddings, and the head, tied or not."""
    matrices: list[nn.Parameter]
    """Weights of linear layers, convolutions and attention."""
    vectors: list[nn.Parameter]
    """Gains, biases and scalars."""


_LISTS = {
    "lookup": "lookups",
    **dict.fromkeys(("table", "embedding", "position", "head"), "tables"),
    **dict.fromkeys(("matrix", "input", "output"), "matrices"),
    "vector": "vectors",
}
"""By the role that a module declares, the list that its weight belongs to."""


def parameter_roles(network: nn.Module) -> ParameterRoles:
    """Sort the trainable parameters of any ``network`` by the type of the module that has them.

    A module may declare the ``role`` of its weight: lookup, table, embedding, position, head,
    matrix, input, output or vector; or, as a dict, of any of its parameters by name. Otherwise
    embeddings are tables, what norms have and biases are vectors, and weights of linear layers,
    convolutions and attention are matrices. So is a bare parameter with two or more sizes that are
    not 1. The head is the output embedding that a Hugging Face model names, or else the last linear
    layer outside of lists of blocks that has as many outputs as an embedding has rows.

    Raises:
        ValueError: For a role that there is not.

    Example:
        >>> net = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4), nn.Linear(4, 8, bias=False))
        >>> [len(role) for role in parameter_roles(net)]
        [0, 2, 1, 1]
    """
    head = _find_head(network)
    lists: dict[int, str] = {}
    for path, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            found = _declared(module, path, name)
            if found is None and module is head and name == "weight":
                found = "tables"
            found = found or _by_type(module, name, parameter)
            # of several modules that share it, the first of these: a tied head is a table
            known = lists.get(id(parameter), found)
            lists[id(parameter)] = min(found, known, key=ParameterRoles._fields.index)
    roles = ParameterRoles([], [], [], [])
    for parameter in network.parameters():
        if parameter.requires_grad:
            getattr(roles, lists[id(parameter)]).append(parameter)
    return roles


def describe_groups(optimizer: Optimizer) -> str:
    """Return in a line what an optimizer steps, and by which rates.

    Example:
        >>> from torch.optim import SGD
        >>> describe_groups(SGD(nn.Linear(10, 20).parameters(), lr=0.1))
        'SGD: 220 parameters in 2 tensors at 0.1'
    """
    groups = []
    for group in optimizer.param_groups:
        count = sum(parameter.numel() for parameter in group["params"])
        rate = group.get("initial_lr", group["lr"])
        by = f" by {group['algorithm']}" if "algorithm" in group else ""
        groups.append(f"{count:,} parameters in {len(group['params'])} tensors{by} at {rate:g}")
    return f"{type(optimizer).__name__}: {'; '.join(groups)}"


def _declared(module: nn.Module, path: str, name: str) -> str | None:
    """Return the list that a module declares for one of its parameters, if it declares any."""
    role: Any = getattr(module, "role", None)
    if isinstance(role, dict):
        role = role.get(name)
    elif name != "weight":
        return None
    if role is None:
        return None
    if not isinstance(role, str) or role not in _LISTS:
        raise ValueError(
            f"role={role!r} of {path or type(module).__name__}.{name} is no role of a parameter; "
            f"choose one of {', '.join(_LISTS)}"
        )
    return _LISTS[role]


def _by_type(module: nn.Module, name: str, parameter: nn.Parameter) -> str:
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return "tables"
    if "bias" in name or "Norm" in type(module).__name__:
        return "vectors"
    return "matrices" if sum(size != 1 for size in parameter.shape) >= 2 else "vectors"


def _find_head(network: nn.Module) -> nn.Module | None:
    """Return the untied layer that gives logits, if it does not declare itself."""
    for module in network.modules():
        named = getattr(module, "get_output_embeddings", None)
        found = named() if callable(named) else None
        if isinstance(found, nn.Module):
            return found
    embeddings = [m for m in network.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    rows = {m.num_embeddings for m in embeddings if getattr(m, "role", None) != "lookup"}
    fitting = [
        module
        for module in _outside_lists(network)
        if isinstance(module, nn.Linear)
        and getattr(module, "role", None) is None
        and module.out_features in rows
    ]
    return fitting[-1] if fitting else None


def _outside_lists(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a module and those in it, but for those in a list, which are blocks."""
    yield module
    for child in module.children():
        if not isinstance(child, nn.ModuleList):
            yield from _outside_lists(child)
