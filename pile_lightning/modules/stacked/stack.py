"""Modules of one shape whose weights lie in one tensor, computed as one.

The weights of one name of all members lie in one tensor with a leading axis of members, and each
member's parameter is a view of its part. So members stay ordinary modules: optimizers, clipping,
averages, checkpoints and generation see parameters and gradients, and nothing else.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from pile_lightning.modules.stacked.alike import why_not_stack
from pile_lightning.modules.stacked.regions import compile_stacked, follow_mode
from pile_lightning.nn import StackedKernels
from pile_lightning.parallel.blocks import blocks_of

__all__ = ["Stack"]

M = TypeVar("M", bound=nn.Module)


class Stack(Generic[M]):
    """Compute what is asked of each of many modules as one, and give each its gradients.

    A member's ``.grad`` counts, as without a stack: what ``zero_grad`` drops is dropped, what is
    there is added to. What a call computes is what each member would compute, but for rounding;
    dropout draws for each member, other numbers than it would draw alone.

    Args:
        members: Built, on their device, alike but for the numbers in their parameters. What their
            parts hold beside these, but for whether they train, is what it is now.
        compile: Compile the blocks of their networks, all members in one graph; of language
            modules.

    Raises:
        ValueError: Where the members are not alike; the message says what differs. Where
            ``compile`` finds no network.

    Example:
        >>> members = [nn.Linear(3, 2) for _ in range(4)]
        >>> stack = Stack(members)
        >>> losses = stack(lambda member: member(torch.ones(5, 3)).square().sum())
        >>> losses.shape
        torch.Size([4])
        >>> losses.sum().backward()
        >>> members[3].weight.grad.shape
        torch.Size([2, 3])
    """

    def __init__(self, members: Sequence[M], *, compile: bool = False) -> None:
        problem = why_not_stack(members)
        if problem is not None:
            raise ValueError(f"these members cannot be computed as one: {problem}")
        self.members = list(members)
        self._parts = self._twin_parts(compile=compile)
        self._weights: dict[str, _Weight] = {}
        for name, _ in members[0].named_parameters():
            own = [member.get_parameter(name) for member in members]
            self._weights[name] = _Weight(own, torch.stack([p.data for p in own]))

    def __call__(self, function: Callable[[M], Tensor]) -> Tensor:
        """Compute ``function`` of every member, a tensor with a leading axis of members.

        Args:
            function: Called once, with a module that stands for all; any method of it may be used
                that looks at shapes and not at numbers.
        """
        parameters = {f"module.{name}": whole for name, whole in self._wholes().items()}
        caller = _Caller(self._twin())

        def one(parameters: dict[str, Tensor]) -> Tensor:
            return cast(Tensor, torch.func.functional_call(caller, parameters, (function,)))

        # networks that know that no gradient is wanted work in place, for which vmap has no rules;
        # nothing is recorded then, as the weights were tied to no parameter
        with StackedKernels(), torch.enable_grad():
            out: Tensor = torch.vmap(one, randomness="different")(parameters)
        return out

    def _wholes(self) -> dict[str, Tensor]:
        """Return the weights of all members, tied to their parameters where those are trained."""
        for name, weight in self._weights.items():
            if not weight.is_viewed():
                raise RuntimeError(
                    f"{name} of a member lies elsewhere than where it was stacked: the member was "
                    f"moved or cast since, or the stack released; stack the members anew"
                )
        wholes = {name: weight.whole for name, weight in self._weights.items()}
        trained = [name for name in wholes if self._weights[name].own[0].requires_grad]
        parameters = [parameter for name in trained for parameter in self._weights[name].own]
        tied = _Whole.apply(  # type: ignore[no-untyped-call]
            [wholes[name] for name in trained], *parameters
        )
        return wholes | dict(zip(trained, tied, strict=True))

    def release(self) -> None:
        """Give each member memory of its own again; the stack is used up.

        To go on without some members, release them and stack the others anew.
        """
        for weight in self._weights.values():
            for parameter in weight.own:
                parameter.data = parameter.data.clone()
            weight.whole = torch.empty(0)

    def _twin_parts(self, *, compile: bool) -> dict[str, nn.Module | None]:
        """Copy the parts of a member, without memory for its parameters."""
        first = self.members[0]
        known: dict[int, Any] = {id(buffer): buffer for buffer in first.buffers()}
        for parameter in first.parameters():
            empty = torch.empty_like(parameter, device="meta")
            known[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
        parts = copy.deepcopy(dict(first.named_children()), known)
        if compile:
            if "network" not in parts:
                raise ValueError(
                    f"compile=True compiles the blocks of a member's network, and "
                    f"{type(first).__name__} has none of that name; leave compile out"
                )
            for block in blocks_of(parts["network"]):
                compile_stacked(block)
        return cast("dict[str, nn.Module | None]", parts)

    def _twin(self) -> M:
        """Return a module that has the attributes of the first member as they are now."""
        first = self.members[0]
        twin = copy.copy(first)
        twin.__dict__["_modules"] = self._parts
        follow_mode(twin, first)
        twin.__dict__["_parameters"] = dict(twin.__dict__["_parameters"])
        return twin


class _Weight:
    """The parameters of one name, and the tensor that they are views of."""

    def __init__(self, own: Sequence[nn.Parameter], whole: Tensor) -> None:
        self.own, self.whole = own, whole
        for parameter, part in zip(own, whole.unbind(), strict=True):
            parameter.data = part

    def is_viewed(self) -> bool:
        """Say whether each parameter still lies in its part."""
        start, stride = self.whole.data_ptr(), self.whole.stride(0) * self.whole.element_size()
        return all(p.data_ptr() == start + n * stride for n, p in enumerate(self.own))


class _Whole(torch.autograd.Function):
    """From members' parameters to the tensors that they are views of: nothing is copied.

    The backward gives each parameter its part of the gradient, which autograd keeps as it is.
    """

    @staticmethod
    def forward(ctx: Any, wholes: Sequence[Tensor], *parameters: nn.Parameter) -> Any:
        ctx.set_materialize_grads(False)
        ctx.members = len(parameters) // max(1, len(wholes))
        return tuple(whole.detach() for whole in wholes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        parts: list[Tensor | None] = [None]
        for gradient in gradients:
            parts += [None] * ctx.members if gradient is None else gradient.unbind()
        return tuple(parts)


class _Caller(nn.Module):
    """Calls any function of a module, as ``functional_call`` calls a forward."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[[Any], Tensor]) -> Tensor:
        return function(self.module)
