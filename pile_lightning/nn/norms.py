"""Normalisation: RMSNorm and LayerNorm, both computed in float32 and returned in the input's type.

RMSNorm is written as the formula, not as ``F.rms_norm``: eager, the built-in is the slower of the
two on CPU, and compiled the formula fuses with what is around it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pile_lightning.nn.checks import check_name

__all__ = ["LayerNorm", "LayerNormConfig", "NormConfig", "RMSNorm", "RMSNormConfig"]


@dataclass(frozen=True, kw_only=True)
class NormConfig(ABC):
    """What every normalisation's config can do: build it for a width.

    Example:
        >>> RMSNormConfig().build(8)(torch.ones(1, 8)).shape
        torch.Size([1, 8])
    """

    @abstractmethod
    def build(self, dim: int) -> nn.Module:
        """Make the module that normalises the last dimension, of size ``dim``."""


@dataclass(frozen=True, kw_only=True)
class RMSNormConfig(NormConfig):
    """Divide by the root of the mean square (Zhang and Sennrich, 2019).

    Example:
        >>> RMSNormConfig(gain="scalar", initial_gain=1.2).build(8).weight
        Parameter containing:
        tensor([1.2000], requires_grad=True)
    """

    eps: float = 1e-6
    """Added to the mean square."""
    gain: Literal["vector", "scalar", "none"] = "vector"
    """What multiplies the result: a learned gain for each feature, one for all, or nothing."""
    initial_gain: float = 1.0
    """Where the learned gain starts."""

    def __post_init__(self) -> None:
        check_name(("vector", "scalar", "none"), gain=self.gain)

    def build(self, dim: int) -> "RMSNorm":
        """Make the norm of a last dimension of size ``dim``."""
        return RMSNorm(dim, eps=self.eps, gain=self.gain, initial_gain=self.initial_gain)


@dataclass(frozen=True, kw_only=True)
class LayerNormConfig(NormConfig):
    """Subtract the mean and divide by the standard deviation (Ba et al., 2016).

    Example:
        >>> LayerNormConfig(bias=False).build(8).bias is None
        True
    """

    eps: float = 1e-5
    """Added to the variance."""
    bias: bool = True
    """Whether a learned bias is added to the learned gain."""

    def build(self, dim: int) -> "LayerNorm":
        """Make the norm of a last dimension of size ``dim``."""
        return LayerNorm(dim, eps=self.eps, bias=self.bias)


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps)``, times a learned gain where there is one.

    Args:
        dim: Size of the last dimension.
        eps: Added to the mean square.
        gain: Shape of the gain: one for each feature, one for all, or none.
        initial_gain: Where the gain starts.

    Example:
        >>> RMSNorm(2, gain="none")(torch.tensor([3.0, 4.0]))
        tensor([0.8485, 1.1314])
    """

    weight: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        *,
        eps: float = 1e-6,
        gain: Literal["vector", "scalar", "none"] = "vector",
        initial_gain: float = 1.0,
    ) -> None:
        super().__init__()
        # a scalar has the shape (1,), not (): sharding cannot split a tensor without dimensions
        size = {"vector": dim, "scalar": 1, "none": None}[gain]
        self.eps = eps
        self.initial_gain = initial_gain
        self.register_parameter("weight", None if size is None else nn.Parameter(torch.empty(size)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put the gain back to where it starts."""
        if self.weight is not None:
            nn.init.constant_(self.weight, self.initial_gain)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of ``x``."""
        wide = x.float()
        if torch.is_grad_enabled():
            out = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
            if self.weight is not None:
                out = out * self.weight.float()
            return out.to(x.dtype)
        # in place, as nothing is kept for a backward: of a large batch, what takes the time is new
        # memory
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(self.eps).rsqrt_()
        out = wide * scale if wide is x else wide.mul_(scale)
        if self.weight is not None:
            out.mul_(self.weight.float())
        return out.to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` in float32 whatever the input, with and without autocast.

    Example:
        >>> LayerNorm(8)(torch.ones(1, 8, dtype=torch.bfloat16)).dtype
        torch.bfloat16
    """

    def __init__(self, dim: int, *, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__(dim, eps=eps, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of ``x``."""
        bias = None if self.bias is None else self.bias.float()
        wide = F.layer_norm(x.float(), self.normalized_shape, self.weight.float(), bias, self.eps)
        return wide.to(x.dtype)
