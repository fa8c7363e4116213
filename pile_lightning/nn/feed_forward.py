"""The feed-forward layer, plain or gated, with any activation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from pile_lightning.nn.checks import check_size
from pile_lightning.nn.initialization import Linear

__all__ = ["ACTIVATIONS", "FeedForward", "FeedForwardConfig", "find_activation"]

Activation = Callable[[Tensor], Tensor]


class _Relu2(torch.autograd.Function):
    """Keeps the result alone, which the next product keeps anyway: its root is ``relu(x)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = F.relu(x).square()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        by_x: Tensor = grad * (2 * y.sqrt())
        return by_x


def relu2(x: Tensor) -> Tensor:
    """Square of ReLU (Primer, So et al., 2021)."""
    if not torch.compiler.is_compiling():  # the root would be a pass of its own
        return F.relu(x).square()
    if has_torch_function_unary(x):  # as torch's own functions do, for who has another way
        stand_in: Tensor = handle_torch_function(relu2, (x,), x)
        return stand_in
    out: Tensor = _Relu2.apply(x)  # type: ignore[no-untyped-call]
    return out


ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": relu2,
    "sigmoid": F.sigmoid,
    "silu": F.silu,
    "tanh": F.tanh,
}
"""Activations by name; add your own before making a config that names it."""


def find_activation(name: str) -> Activation:
    """Look up an activation.

    Raises:
        ValueError: If there is none of that name; the message lists those that are.
    """
    if name not in ACTIVATIONS:
        raise ValueError(
            f"activation={name!r} is unknown; choose one of {', '.join(sorted(ACTIVATIONS))}, or "
            f"add yours to pile_lightning.nn.ACTIVATIONS"
        )
    return ACTIVATIONS[name]


@dataclass(frozen=True, kw_only=True)
class FeedForwardConfig:
    """Width, activation, and whether it is gated.

    Raises:
        ValueError: If the activation is unknown or the width not positive.

    Example:
        >>> FeedForwardConfig(activation="silu", gated=True, d_ff=24).build(8).gate.weight.shape
        torch.Size([24, 8])
    """

    d_ff: int | None = None
    """Hidden features; null for 4 * d_model."""
    activation: str = "relu2"
    """Name of the activation: gelu, gelu_tanh, relu, relu2, sigmoid, silu, tanh."""
    gated: bool = False
    """Multiply the hidden features by an activated gate (Shazeer, 2020): silu makes it SwiGLU."""
    bias: bool = False
    """Whether the projections have biases."""

    def __post_init__(self) -> None:
        find_activation(self.activation)
        if self.d_ff is not None:
            check_size(d_ff=self.d_ff)

    def build(self, d_model: int) -> "FeedForward":
        """Make the layer for a stream of width ``d_model``."""
        return FeedForward(
            d_model,
            d_ff=4 * d_model if self.d_ff is None else self.d_ff,
            activation=find_activation(self.activation),
            gated=self.gated,
            bias=self.bias,
        )


class FeedForward(nn.Module):
    """``down(activation(up x))``, or ``down(activation(gate x) * up x)``.

    Args:
        d_model: Width of the residual stream.
        d_ff: Hidden features.
        activation: Applied to the hidden features, or to the gate.
        gated: Whether there is a gate.
        bias: Whether the projections have biases.

    Example:
        >>> import torch
        >>> FeedForwardConfig().build(8)(torch.ones(1, 3, 8)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_ff: int,
        activation: Activation,
        gated: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.gate = Linear(d_model, d_ff, role="input", bias=bias) if gated else None
        self.up = Linear(d_model, d_ff, role="input", bias=bias)
        self.down = Linear(d_ff, d_model, role="output", bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position of ``x`` (batch, seq, d_model) on its own."""
        hidden = self.up(x)
        if self.gate is None:
            hidden = self.activation(hidden)
        else:
            hidden = self.activation(self.gate(x)) * hidden
        out: Tensor = self.down(hidden)
        return out
