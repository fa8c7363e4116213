"""Sort a network's parameters by what they are: tables, matrices and the rest."""

from typing import NamedTuple

from torch import nn

__all__ = ["ParameterRoles", "parameter_roles"]


class ParameterRoles(NamedTuple):
    """The trainable parameters of a network, each in exactly one list."""

    lookups: list[nn.Parameter]
    """Embeddings whose module calls itself a ``lookup``: their rows are added, never multiplied."""
    tables: list[nn.Parameter]
    """Other embeddings, and matrices with as many rows as one of them (the head, tied or not), but
    for those whose module calls itself an ``input`` or ``output`` projection."""
    matrices: list[nn.Parameter]
    """Every other parameter of two or more dimensions."""
    vectors: list[nn.Parameter]
    """Gains, biases and scalars."""


def parameter_roles(network: nn.Module) -> ParameterRoles:
    """Sort the trainable parameters of any ``network`` by shape and owner.

    Example:
        >>> net = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4), nn.Linear(4, 8, bias=False))
        >>> [len(role) for role in parameter_roles(net)]
        [0, 2, 1, 1]
    """
    embeddings = [m for m in network.modules() if isinstance(m, nn.Embedding)]
    lookups = {id(m.weight) for m in embeddings if getattr(m, "role", None) == "lookup"}
    owned = {id(m.weight) for m in embeddings} - lookups
    # a feed-forward layer may well be as wide as the vocabulary is large
    projections = {
        id(m.weight)
        for m in network.modules()
        if isinstance(m, nn.Linear) and getattr(m, "role", None) in ("input", "output")
    }
    rows = {m.num_embeddings for m in embeddings if id(m.weight) in owned}
    roles = ParameterRoles([], [], [], [])
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in lookups:
            roles.lookups.append(parameter)
        elif id(parameter) in owned or (
            parameter.ndim == 2 and parameter.shape[0] in rows and id(parameter) not in projections
        ):
            roles.tables.append(parameter)
        elif parameter.ndim >= 2:
            roles.matrices.append(parameter)
        else:
            roles.vectors.append(parameter)
    return roles
