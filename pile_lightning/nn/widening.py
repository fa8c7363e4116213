"""The same decoder at another width: what was learnt about a narrow one holds for it.

Heads and hidden features grow in number, and where looked-up rows are normalised the embedding
starts in proportion to 1 / width, as learning rates that hold for any width ask for
(``pile_lightning.optim``). All else is as it was.
"""

from dataclasses import fields, replace
from typing import Any

from pile_lightning.nn.attention import AttentionConfig
from pile_lightning.nn.decoder import DecoderConfig
from pile_lightning.nn.initialization import InitConfig
from pile_lightning.nn.network import NetworkConfig
from pile_lightning.nn.sizes import HEAD_DIM, SizedDecoderConfig, depth_of, width_at

__all__ = ["resized", "widened"]


def widened(config: NetworkConfig, *, d_model: int, num_layers: int | None = None) -> DecoderConfig:
    """Return the config of a wider decoder with heads of as many features.

    Args:
        config: The narrow one.
        d_model: The width; at that of ``config`` it is the same.
        num_layers: Blocks; null for as many as there are.

    Raises:
        TypeError: For a network that is no decoder of this package.
        ValueError: For a narrower one, or a width that is not in whole heads.

    Example:
        >>> wide = widened(DecoderConfig(d_model=32), d_model=128)
        >>> wide.attention.num_heads, wide.num_layers
        (8, 4)
    """
    narrow = _decoder(config)
    settings = _at_width(narrow, d_model)
    heads = narrow.attention.num_heads * d_model
    if heads % narrow.d_model:
        whole = narrow.d_model // narrow.attention.num_heads
        raise ValueError(
            f"d_model={d_model} is not in whole heads: the sweep has one for {whole} features of "
            f"the stream; choose a multiple of {whole}"
        )
    settings["attention"] = _attention(narrow, heads // narrow.d_model, narrow.attention.head_dim)
    layers = narrow.num_layers if num_layers is None else num_layers
    if (d_model, layers) == (narrow.d_model, narrow.num_layers):
        return narrow
    if isinstance(narrow, SizedDecoderConfig):
        del settings["size"]
        return DecoderConfig(**settings, d_model=d_model, num_layers=layers)
    return replace(narrow, **settings | {"d_model": d_model, "num_layers": layers})


def resized(config: NetworkConfig, *, size: str) -> SizedDecoderConfig:
    """Return the config of a wider decoder whose layers, width and heads follow from one word.

    Args:
        config: The narrow one.
        size: As for ``SizedDecoderConfig``.

    Raises:
        TypeError: For a network that has not a size's settings.
        ValueError: For a narrower one, or a word that is no size.

    Example:
        >>> large = resized(DecoderConfig(d_model=64), size="d8")
        >>> large.d_model, large.num_layers, large.attention.num_heads
        (512, 8, 4)
    """
    narrow = _decoder(config)
    if type(narrow) not in (DecoderConfig, SizedDecoderConfig):
        raise TypeError(
            f"size={size!r} is of a DecoderConfig, and the sweep's network is a "
            f"{type(narrow).__name__}; give d_model and num_layers instead"
        )
    width = width_at(depth_of(size))
    settings = _at_width(narrow, width)
    if isinstance(narrow, SizedDecoderConfig) and narrow.size == size:
        return narrow
    settings = {name: settings[name] for name in settings if name not in ("d_model", "num_layers")}
    settings |= {"size": size, "attention": _attention(narrow, width // HEAD_DIM, None)}
    return SizedDecoderConfig(**settings)


def _decoder(config: NetworkConfig) -> DecoderConfig:
    if not isinstance(config, DecoderConfig):
        raise TypeError(
            f"{type(config).__name__} is not carried to another width: how that is done is known "
            f"of DecoderConfig alone; derive the network's config from it"
        )
    return config


def _at_width(config: DecoderConfig, d_model: int) -> dict[str, Any]:
    """Return the settings, with hidden features and the embedding's start those of the width."""
    if d_model < config.d_model:
        raise ValueError(
            f"width {d_model} is narrower than the {config.d_model} of the sweep, whose setting is "
            f"carried to wider ones; give {config.d_model} or more"
        )
    settings = {f.name: getattr(config, f.name) for f in fields(config) if f.init}
    settings["init"] = _init(config, d_model)
    hidden = config.feed_forward.d_ff
    if hidden is not None:
        wide = round(hidden * d_model / config.d_model)
        settings["feed_forward"] = replace(config.feed_forward, d_ff=wide)
    return settings


def _attention(config: DecoderConfig, num_heads: int, head_dim: int | None) -> AttentionConfig:
    """Return the heads, of which as many share keys and values as before."""
    heads = config.attention
    if heads.num_kv_heads is None:
        return replace(heads, num_heads=num_heads, head_dim=head_dim)
    shared = heads.num_heads // heads.num_kv_heads
    if num_heads % shared:
        raise ValueError(
            f"{num_heads} heads do not share keys and values by {shared}, as those of the sweep "
            f"do; choose a width of a multiple of {shared} heads"
        )
    return replace(heads, num_heads=num_heads, num_kv_heads=num_heads // shared, head_dim=head_dim)


def _init(config: DecoderConfig, d_model: int) -> InitConfig:
    """Return the table by which the embedding starts as now, times the old width over the new."""
    rule, narrow = config.init.embedding, config.d_model
    if config.embedding_norm is None or rule.scaled_by == "width" or d_model == narrow:
        return config.init
    std = rule.resolve(narrow, num_layers=config.num_layers) * narrow
    return replace(config.init, embedding=replace(rule, std=std, scaled_by="width"))
