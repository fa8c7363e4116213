"""How large a run is to be, by ``pile transfer``'s arguments and by configs on top of the sweep's.

Of a config on top, such as configs/sizes/d12.yaml, everything is taken but the model, of which the
network's size is: what else the model has is what the sweep was for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pile_lightning.config_file import read_config
from pile_lightning.nn import NetworkConfig, resized, widened

__all__ = ["Larger", "find_larger"]

_SIZE = ("size", "d_model", "num_layers")


@dataclass(frozen=True, kw_only=True)
class Larger:
    """A size, and what the run has otherwise."""

    size: str | None
    """A word for all of it; or"""
    d_model: int | None
    """the width, and"""
    num_layers: int | None
    """the layers, None for those of the sweep."""
    on_top: Mapping[str, Any]
    """Of configs, merged, without the model."""
    not_taken: Mapping[str, Sequence[str]]
    """What of a config's model is left out, by path."""

    @property
    def label(self) -> str:
        """A word for it, in the name of a folder."""
        layers = "" if self.num_layers is None else f"x{self.num_layers}"
        return self.size or f"width{self.d_model}{layers}"

    def apply(self, network: NetworkConfig) -> NetworkConfig:
        """Return a network of that size, otherwise as ``network``."""
        if self.size is not None:
            return resized(network, size=self.size)
        assert self.d_model is not None
        return widened(network, d_model=self.d_model, num_layers=self.num_layers)


def find_larger(
    *,
    size: str | None,
    d_model: int | None,
    num_layers: int | None,
    configs: Sequence[str],
) -> Larger:
    """Return how large the run is to be: arguments win over configs, and later configs over others.

    Raises:
        FileNotFoundError: Where there is no such config.
        ValueError: Where no size is given, or two that may differ.
    """
    on_top: dict[str, Any] = {}
    not_taken: dict[str, list[str]] = {}
    found: dict[str, Any] = {}
    for path in configs:
        config = read_config(Path(path))
        model = config.pop("model", None) or {}
        model = dict(model.get("init_args") or model)
        network = model.pop("network", None) or {}
        network = network.get("init_args") or network
        own = {name: network[name] for name in _SIZE if name in network}
        found = own or found  # one size is replaced by another as a whole
        on_top = merged(on_top, config)
        if left := [name for name in model if name not in ("class_path", "init_args")]:
            not_taken[path] = left
    given = {"size": size, "d_model": d_model, "num_layers": num_layers}
    given = {name: value for name, value in given.items() if value is not None}
    if set(given) == {"num_layers"}:
        given = {**found, **given}
    chosen = dict.fromkeys(_SIZE) | (given or found)
    if (chosen["size"] is None) == (chosen["d_model"] is None):
        raise ValueError(
            f"size={chosen['size']} and d_model={chosen['d_model']} do not say how large the run "
            f"is to be; give one of them: --size d12, --d_model 512, or a config that does: "
            f"--config configs/sizes/d12.yaml"
        )
    if chosen["size"] is not None and chosen["num_layers"] is not None:
        raise ValueError(
            f"size={chosen['size']!r} says how many layers there are, and "
            f"num_layers={chosen['num_layers']} too; leave one out"
        )
    return Larger(**chosen, on_top=on_top, not_taken=not_taken)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with another on top of it; one of another class replaces the whole.

    Example:
        >>> merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}})
        {'a': {'b': 1, 'c': 4}, 'd': 3}
        >>> merged({"a": {"class_path": "B", "init_args": {"c": 2}}}, {"a": {"class_path": "D"}})
        {'a': {'class_path': 'D'}}
    """
    both = dict(below)
    for name, value in above.items():
        old = both.get(name)
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("class_path", old.get("class_path")) == old.get("class_path")
        ):
            both[name] = merged(old, value)
        else:
            both[name] = value
    return both
