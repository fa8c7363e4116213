"""Where a token stands: rotary, sinusoidal, learned, or not told at all.

A kind of positions has two hooks: ``embed`` changes the embedded tokens once, ``rotation`` gives
the angles that turn queries and keys in every layer. The angles are computed once per forward, in
float32 (bf16 cannot tell positions above 256 apart), from settings that are plain numbers: no
buffer, so nothing to cast, to save or to bring from the meta device.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from pile_lightning.nn.initialization import Embedding

__all__ = [
    "LearnedConfig",
    "NoPositionsConfig",
    "Positions",
    "PositionsConfig",
    "RopeConfig",
    "Rotation",
    "SinusoidalConfig",
    "rotate",
    "sinusoids",
]

Rotation: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines of the angles, each (batch or 1, 1, seq, rotary_dim / 2), float32."""


class Positions(nn.Module):
    """No positions: both hooks do nothing. The other kinds override one of them.

    Example:
        >>> x = torch.ones(1, 2, 4)
        >>> Positions().embed(x, torch.arange(2)[None]) is x
        True
    """

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Add positions (batch or 1, seq) to the embedded tokens ``x`` (batch, seq, d_model)."""
        return x

    def rotation(self, position_ids: Tensor) -> Rotation | None:
        """Compute the angles of queries and keys at ``position_ids``; ``None`` means no turning."""
        return None


@dataclass(frozen=True, kw_only=True)
class PositionsConfig(ABC):
    """What every kind of positions can do: check that it fits, and build itself.

    Example:
        >>> RopeConfig().build(d_model=8, head_dim=4, max_seq_len=16).rotary_dim
        4
    """

    def validate(self, *, d_model: int, head_dim: int) -> None:  # noqa: B027 - a default
        """Raise a ValueError where these positions do not fit the widths."""

    @abstractmethod
    def build(self, *, d_model: int, head_dim: int, max_seq_len: int) -> Positions:
        """Make the module."""


@dataclass(frozen=True, kw_only=True)
class NoPositionsConfig(PositionsConfig):
    """Tell the network nothing; causal attention still lets it count (Haviv et al., 2022).

    Example:
        >>> NoPositionsConfig().build(d_model=8, head_dim=4, max_seq_len=16)
        Positions()
    """

    def build(self, *, d_model: int, head_dim: int, max_seq_len: int) -> Positions:
        """Make the module."""
        return Positions()


@dataclass(frozen=True, kw_only=True)
class RopeConfig(PositionsConfig):
    """Turn queries and keys by angles that grow with position (RoFormer, Su et al., 2021).

    Feature ``i`` is paired with feature ``i + rotary_dim / 2`` ("rotate half"), as in the weights
    that Hugging Face distributes.

    Example:
        >>> RopeConfig(fraction=0.25).rotary_dim(64)
        16
    """

    base: float = 10000.0
    """The slowest pair turns about once in ``2 * pi * base`` positions."""
    fraction: float = 1.0
    """Part of each head that is turned; the rest of its features carry no position."""

    def rotary_dim(self, head_dim: int) -> int:
        """Count the features of each head that are turned."""
        return int(head_dim * self.fraction)

    def validate(self, *, d_model: int, head_dim: int) -> None:
        """Raise a ValueError where the turned features do not pair up."""
        turned = self.rotary_dim(head_dim)
        if turned % 2 or not 0 < turned <= head_dim:
            raise ValueError(
                f"rotary positions turn fraction={self.fraction} of head_dim={head_dim}, that is "
                f"{turned} features, and need an even number of at least 2 and at most head_dim; "
                f"change fraction or head_dim"
            )

    def build(self, *, d_model: int, head_dim: int, max_seq_len: int) -> "Rope":
        """Make the module."""
        self.validate(d_model=d_model, head_dim=head_dim)
        return Rope(self.rotary_dim(head_dim), base=self.base)


@dataclass(frozen=True, kw_only=True)
class SinusoidalConfig(PositionsConfig):
    """Add fixed sines and cosines to the embedded tokens (Vaswani et al., 2017, section 3.5).

    Example:
        >>> SinusoidalConfig().build(d_model=8, head_dim=4, max_seq_len=16)
        Sinusoidal()
    """

    base: float = 10000.0
    """The longest wave has ``2 * pi * base`` positions."""

    def validate(self, *, d_model: int, head_dim: int) -> None:
        """Raise a ValueError where sines and cosines do not pair up."""
        if d_model % 2:
            raise ValueError(
                f"d_model={d_model} is odd, and sinusoidal positions pair sines with cosines; "
                f"choose an even d_model"
            )

    def build(self, *, d_model: int, head_dim: int, max_seq_len: int) -> "Sinusoidal":
        """Make the module."""
        self.validate(d_model=d_model, head_dim=head_dim)
        return Sinusoidal(base=self.base)


@dataclass(frozen=True, kw_only=True)
class LearnedConfig(PositionsConfig):
    """Add a learned vector for each position up to ``max_seq_len`` (GPT-2).

    Example:
        >>> LearnedConfig().build(d_model=8, head_dim=4, max_seq_len=16).table
        Embedding(16, 8)
    """

    def build(self, *, d_model: int, head_dim: int, max_seq_len: int) -> "Learned":
        """Make the module."""
        return Learned(d_model, max_seq_len=max_seq_len)


class Rope(Positions):
    """Rotary positions: cosines and sines for ``rotate``.

    Example:
        >>> cosines, sines = Rope(4).rotation(torch.arange(3)[None])
        >>> cosines.shape
        torch.Size([1, 1, 3, 2])
    """

    def __init__(self, rotary_dim: int, *, base: float = 10000.0) -> None:
        super().__init__()
        self.rotary_dim = rotary_dim
        self.base = base

    def rotation(self, position_ids: Tensor) -> Rotation:
        """Compute the cosines and sines of every pair of features at ``position_ids``."""
        angles = _angles(position_ids, self.rotary_dim, base=self.base)[:, None]
        return angles.cos(), angles.sin()


class Sinusoidal(Positions):
    """Sinusoidal positions, added to the embedded tokens.

    Example:
        >>> Sinusoidal().embed(torch.zeros(1, 1, 4), torch.tensor([[0]]))
        tensor([[[0., 1., 0., 1.]]])
    """

    def __init__(self, *, base: float = 10000.0) -> None:
        super().__init__()
        self.base = base

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Add sines and cosines of ``position_ids`` to ``x``."""
        return x + sinusoids(position_ids, x.shape[-1], base=self.base).to(x.dtype)


class Learned(Positions):
    """A learned vector for each position, added to the embedded tokens.

    Example:
        >>> Learned(4, max_seq_len=8).table.weight.shape
        torch.Size([8, 4])
    """

    def __init__(self, d_model: int, *, max_seq_len: int) -> None:
        super().__init__()
        self.table = Embedding(max_seq_len, d_model, role="position")

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Add the rows of ``position_ids`` to ``x``."""
        out: Tensor = x + self.table(position_ids)
        return out


def sinusoids(position_ids: Tensor, dim: int, *, base: float = 10000.0) -> Tensor:
    """Compute interleaved sines and cosines (batch, seq, dim) of ``position_ids`` (batch, seq)."""
    angles = _angles(position_ids, dim, base=base)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the first features of each head of ``x`` (batch, heads, seq, head_dim) by ``rotation``.

    Example:
        >>> quarter = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
        >>> rotate(torch.tensor([[[[1.0, 0.0, 5.0]]]]), quarter)
        tensor([[[[0., 1., 5.]]]])
    """
    cosines, sines = rotation
    half = cosines.shape[-1]
    wide = x.float()
    first, second, rest = wide[..., :half], wide[..., half : 2 * half], wide[..., 2 * half :]
    if not torch.is_grad_enabled() and x.shape[-2] > 1:
        # each part goes where it belongs at once: of a prompt, what takes the time is new memory
        out = torch.empty_like(x)
        out[..., :half] = (first * cosines).addcmul_(second, sines, value=-1)
        out[..., half : 2 * half] = (second * cosines).addcmul_(first, sines)
        out[..., 2 * half :] = rest
        return out
    turned = (first * cosines - second * sines, second * cosines + first * sines, rest)
    return torch.cat(turned, dim=-1).to(x.dtype)


def _angles(position_ids: Tensor, dim: int, *, base: float) -> Tensor:
    """Multiply positions by ``dim / 2`` frequencies from 1 to 1/base: (batch, seq, dim / 2)."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=position_ids.device) / dim
    return position_ids[:, :, None].float() * torch.exp(-math.log(base) * exponents)
