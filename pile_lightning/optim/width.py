"""Learning rates that hold for any width: found on a narrow network, used on a wide one.

What a step does to the activations and the logits should not grow with the width d. By AdamW every
entry of a matrix moves by the learning rate, all d entries of a row in step, so that what the row
multiplies moves by d times as much: the rate has to fall as 1 / d (Yang et al., Tensor Programs V,
arXiv 2203.03466). Muon's step has a fixed spectral norm, and needs no correction. Gains, biases and
look-up tables are added or multiplied entry by entry, and keep their rate as well.

Tables that are multiplied, too, should start in proportion to 1 / d:
``pile_lightning.nn.InitConfig.any_width``.
"""

from dataclasses import fields, replace

from torch import nn

from pile_lightning.optim.base import OptimizerConfig
from pile_lightning.optim.groups import parameter_roles

__all__ = ["check_base_width", "meant_for", "rate_factor", "width_of"]


def rate_factor(network: nn.Module, *, base_width: int | None) -> float:
    """Return the factor on a learning rate that is meant for networks of ``base_width``.

    Example:
        >>> rate_factor(nn.Embedding(100, 1024), base_width=256)
        0.25
    """
    return 1.0 if base_width is None else base_width / width_of(network)


def width_of(network: nn.Module) -> int:
    """Return the width of ``network``: the columns of its embedding.

    Raises:
        ValueError: For a network without one.

    Example:
        >>> width_of(nn.Sequential(nn.Embedding(100, 32), nn.Linear(32, 64)))
        32
    """
    tables = parameter_roles(network).tables
    if not tables:
        raise ValueError(
            f"base_width scales learning rates by the width of the network, the columns of its "
            f"embedding, and {type(network).__name__} has none; leave base_width out"
        )
    return int(tables[0].shape[1])


def check_base_width(base_width: int | None) -> None:
    """Raise where ``base_width`` is no width.

    Raises:
        ValueError: For less than 1.
    """
    if base_width is not None and base_width < 1:
        raise ValueError(
            f"base_width={base_width} is the width that the learning rates are meant for; choose "
            f"at least 1, or null for rates that are the same at any width"
        )


def meant_for(config: OptimizerConfig, width: int) -> OptimizerConfig:
    """Return a config whose rates at ``width`` are those of ``config``, and follow it elsewhere.

    Raises:
        TypeError: For an optimizer that does not know of widths.

    Example:
        >>> from pile_lightning.optim import AdamWConfig
        >>> meant_for(AdamWConfig(), 64).base_width
        64
        >>> meant_for(AdamWConfig(base_width=256), 64).base_width
        256
    """
    if not any(f.name == "base_width" for f in fields(config)):
        raise TypeError(
            f"{type(config).__name__} has no base_width, so that its rates cannot follow the "
            f"width; give it one, and let build multiply by pile_lightning.optim.rate_factor"
        )
    if getattr(config, "base_width", None) is not None:
        return config
    return replace(config, **{"base_width": width})
