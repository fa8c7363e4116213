"""Which modules can be computed as one: those that differ in nothing but the numbers they learn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torchmetrics import Metric

from pile_lightning.modules.base import LanguageModule

__all__ = ["why_not_stack"]

# how a member learns is its optimizer's business, which a stack leaves to it
_MAY_DIFFER = ("optimizer", "schedule")


def why_not_stack(members: Sequence[nn.Module]) -> str | None:
    """Say why ``members`` cannot be computed as one, or None where nothing is known against it.

    Example:
        >>> why_not_stack([nn.Linear(2, 2), nn.Linear(2, 2)])
        >>> print(why_not_stack([nn.Dropout(0.1), nn.Dropout(0.2)]))
        members 0 and 1 differ in p: 0.1 and 0.2; what is stacked has that in common
    """
    for checks in (_alone, _differences):
        for problem in checks(members):
            return problem
    return None


def _alone(members: Sequence[nn.Module]) -> Iterator[str]:
    """Yield what keeps any member from being stacked."""
    if not members:
        yield "there are no members; name one at least"
    owners: dict[int, int] = {}
    for number, member in enumerate(members):
        if isinstance(member, LanguageModule):
            if member.network is None:
                yield f"member {number} is not built; call its configure_model before"
            if member.activation_checkpointing != "none":
                yield (
                    f"member {number} has activation_checkpointing="
                    f"{member.activation_checkpointing}; what is stacked is not computed twice: "
                    f"set it to none"
                )
        for name, parameter in member.named_parameters():
            if isinstance(parameter, DTensor):
                yield f"{name} of member {number} is spread over ranks; use ddp or one device"
            if parameter.is_meta:
                yield f"{name} of member {number} has no numbers yet; fill the network before"
            other = owners.setdefault(id(parameter), number)
            if other != number:
                yield f"members {other} and {number} share {name}; a stack needs one for each"


def _differences(members: Sequence[nn.Module]) -> Iterator[str]:
    """Yield in what a member differs from the first, from coarse to fine."""
    first = members[0]
    for number, member in enumerate(members[1:], start=1):
        who = f"members 0 and {number}"
        for look in (_kind, _settings, _parts, _attributes, _parameters):
            one, two = look(first), look(member)
            for name in sorted(one.keys() | two.keys()):
                if not _equal(one.get(name), two.get(name)):
                    yield (
                        f"{who} differ in {name}: {_told(one.get(name))} and "
                        f"{_told(two.get(name))}; what is stacked has that in common"
                    )
        for name, buffer in first.named_buffers():
            if not torch.equal(buffer, member.get_buffer(name)):
                yield f"{who} have other numbers in the buffer {name}, which is not stacked"


def _kind(module: nn.Module) -> dict[str, Any]:
    return {"class": type(module).__qualname__, "module": type(module).__module__}


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return a module's hyper-parameters, nested ones by dotted names."""
    if not isinstance(module, LanguageModule):
        return {}
    return dict(_flat({k: v for k, v in module.hparams.items() if k not in _MAY_DIFFER}))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parts(module: nn.Module) -> dict[str, Any]:
    return {name: type(part).__qualname__ for name, part in module.named_modules() if name}


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return what a module and its parts hold that decides what they compute: data, functions."""
    plain = (bool, int, float, str, tuple, type(None))
    found = {}
    for path, part in module.named_modules():
        if isinstance(part, Metric):  # no part of a loss; each has functions of its own
            continue
        language = isinstance(part, LanguageModule)
        for name, value in vars(part).items():
            # what a language module holds beside its settings is of the run
            wanted = isinstance(value, plain) or (
                not language and (is_dataclass(value) or callable(value))
            )
            if wanted and not name.startswith("_"):
                found[f"{path}.{name}" if path else name] = value
    return found


def _parameters(module: nn.Module) -> dict[str, Any]:
    return {
        name: (tuple(tensor.shape), tensor.dtype, str(tensor.device), tensor.requires_grad)
        for named in (module.named_parameters(), module.named_buffers())
        for name, tensor in named
    }


def _equal(one: Any, two: Any) -> bool:
    if one is two:
        return True
    if isinstance(one, partial) and isinstance(two, partial):
        return (one.func, one.args, one.keywords) == (two.func, two.args, two.keywords)
    if isinstance(one, FunctionType) and isinstance(two, FunctionType):
        # written once, made for each module anew
        return one.__code__ is two.__code__ and one.__closure__ == two.__closure__
    try:
        return bool(one == two)
    except (RuntimeError, TypeError, ValueError):  # tensors in a tuple, say
        return False


def _told(value: Any) -> str:
    told = repr(value)
    return told if len(told) < 200 else f"{told[:200]}..."
