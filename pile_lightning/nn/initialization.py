"""How weights start: one table from the role of a weight to the rule that fills it.

Every matrix of the package's networks is a ``Linear`` or ``Embedding`` of this file: it names its
role, and is zero until ``initialize`` walks the network once and fills it. No number is drawn
before, so that a network built directly and one built on the meta device, materialised and
initialised later, are the same from the same seed. Biases stay at zero, and norms know their own
start.
"""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from pile_lightning.nn.checks import check_name

__all__ = ["Embedding", "InitConfig", "InitRule", "Linear", "Role", "initialize", "learned_scalars"]

Role: TypeAlias = Literal["embedding", "position", "lookup", "input", "output", "head"]
"""What a matrix is for: the token table, the table of learned positions, a table beside the blocks,
a projection that reads the residual stream, one that writes to it, or an untied head."""


@dataclass(frozen=True, kw_only=True)
class InitRule:
    """A distribution around zero, and its width.

    Example:
        >>> InitRule(distribution="normal", std=0.02, scaled_by="depth").resolve(64, num_layers=8)
        0.005
    """

    # a default: a table that names some rules is read before those that it leaves out are filled in
    distribution: Literal["uniform", "normal", "zeros"] = "normal"
    """Shape of the distribution."""
    std: float = 1.0
    """Standard deviation, before scaling."""
    scaled_by: Literal["none", "fan_in", "depth", "fan_in_and_depth", "width"] = "none"
    """Divide ``std`` by sqrt(fan_in), the number of inputs; by sqrt(2 * num_layers), the number of
    additions to the residual stream; by both; by fan_in itself; or by nothing."""

    def __post_init__(self) -> None:
        check_name(("uniform", "normal", "zeros"), distribution=self.distribution)
        scales = ("none", "fan_in", "depth", "fan_in_and_depth", "width")
        check_name(scales, scaled_by=self.scaled_by)

    def resolve(self, fan_in: int, *, num_layers: int) -> float:
        """Compute the standard deviation for a matrix with ``fan_in`` inputs."""
        std = self.std
        if self.scaled_by in {"fan_in", "fan_in_and_depth"}:
            std /= math.sqrt(fan_in)
        if self.scaled_by in {"depth", "fan_in_and_depth"}:
            std /= math.sqrt(2 * num_layers)
        if self.scaled_by == "width":
            std /= fan_in
        return std

    def fill(self, weight: Tensor, *, num_layers: int) -> None:
        """Fill ``weight`` (out, in) in place."""
        std = self.resolve(weight.shape[-1], num_layers=num_layers)
        match self.distribution:
            case "zeros":
                nn.init.zeros_(weight)
            case "normal":
                nn.init.normal_(weight, std=std)
            case "uniform":
                bound = math.sqrt(3) * std
                nn.init.uniform_(weight, -bound, bound)


_NARROW = InitRule(distribution="uniform", std=0.5, scaled_by="fan_in")


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """The table: a rule for each role.

    =========  ==========================  =============  =======================
    role       which matrices              default        GPT-2 (``gpt2()``)
    =========  ==========================  =============  =======================
    embedding  tokens, and the tied head   uniform 0.5/f  normal 0.02
    position   learned positions           normal 0.02    normal 0.02
    lookup     tables beside the blocks    zeros          zeros
    input      q, k, v, gate, up           uniform 0.5/f  normal 0.02
    output     attention's out, ff's down  zeros          normal 0.02/sqrt(2*L)
    head       an untied head              uniform 0.5/f  normal 0.02
    =========  ==========================  =============  =======================

    (The numbers are standard deviations, f is sqrt(fan_in), L the number of layers.) With zero
    output projections every block starts as the identity, so that depth does not matter to the
    first steps.

    Example:
        >>> InitConfig(output=InitRule(distribution="normal", std=0.02)).output.std
        0.02
    """

    embedding: InitRule = _NARROW
    """The token table, which is also the tied head; its fan_in is d_model."""
    position: InitRule = InitRule(distribution="normal", std=0.02)
    """The table of learned positions."""
    lookup: InitRule = InitRule(distribution="zeros")
    """Tables beside the blocks."""
    input: InitRule = _NARROW
    """Projections that read the residual stream."""
    output: InitRule = InitRule(distribution="zeros")
    """Projections that write to the residual stream."""
    head: InitRule = _NARROW
    """An untied head."""

    @classmethod
    def any_width(cls) -> "InitConfig":
        """Return the table for learning rates that hold for any width; at 256 it is the default.

        A looked-up row is normalised, so that what it starts with matters to the head alone: to a
        tied one, whose logit of the token itself would grow with the root of the width.
        """
        return cls(embedding=InitRule(distribution="uniform", std=8.0, scaled_by="width"))

    @classmethod
    def gpt2(cls) -> "InitConfig":
        """Return GPT-2's table (Radford et al., 2019, section 2.3)."""
        plain = InitRule(distribution="normal", std=0.02)
        output = InitRule(distribution="normal", std=0.02, scaled_by="depth")
        return cls(embedding=plain, position=plain, input=plain, output=output, head=plain)


class Linear(nn.Linear):
    """``nn.Linear`` that names its role and is zero until ``initialize`` fills it.

    Args:
        d_in: Input features.
        d_out: Output features.
        role: What the matrix is for.
        bias: Whether there is a bias.

    Example:
        >>> Linear(4, 8, role="input", bias=False).role
        'input'
    """

    def __init__(self, d_in: int, d_out: int, *, role: Role, bias: bool) -> None:
        super().__init__(d_in, d_out, bias=bias)
        self.role = role

    def reset_parameters(self) -> None:
        """Start at zero, which draws no random numbers."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Embedding(nn.Embedding):
    """``nn.Embedding`` that names its role and is zero until ``initialize`` fills it.

    Example:
        >>> Embedding(10, 4, role="embedding").role
        'embedding'
    """

    def __init__(
        self, num_rows: int, dim: int, *, role: Role, padding_idx: int | None = None
    ) -> None:
        super().__init__(num_rows, dim, padding_idx=padding_idx)
        self.role = role

    def reset_parameters(self) -> None:
        """Start at zero, which draws no random numbers."""
        nn.init.zeros_(self.weight)


def learned_scalars(count: int) -> nn.Parameter | None:
    """Make a parameter of ``count`` numbers, to be filled; None for none.

    One without numbers would never get a gradient, and Lightning's ddp calls that an error.

    Example:
        >>> learned_scalars(3).shape, learned_scalars(0)
        (torch.Size([3]), None)
    """
    return nn.Parameter(torch.empty(count)) if count else None


@torch.no_grad()
def initialize(network: nn.Module, config: InitConfig, *, num_layers: int) -> None:
    """Fill every parameter of ``network`` in place, in the order of its modules.

    Parameters on the meta device have no numbers to fill and use none from the generator.

    Args:
        network: Made of this file's ``Linear`` and ``Embedding``, and of modules with a
            ``reset_parameters`` of their own.
        config: The table.
        num_layers: Blocks that write to the residual stream, for rules scaled by depth.
    """
    if any(parameter.is_meta for parameter in network.parameters()):
        return
    for module in network.modules():
        if module is not network and callable(reset := getattr(module, "reset_parameters", None)):
            reset()
        if isinstance(module, Linear | Embedding):
            rule: InitRule = getattr(config, module.role)
            rule.fill(module.weight, num_layers=num_layers)
            if isinstance(module, Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
