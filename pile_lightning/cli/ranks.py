"""How many ranks a run will have, from its config, before any of them is there."""

import sys
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator

from pile_lightning.modules import Environment
from pile_lightning.parallel import ShardedStrategy, SpreadStrategy, check_spreads, launched_ranks

__all__ = ["count_ranks", "tell_ranks"]


def count_ranks(trainer: Any) -> int:
    """Return the ranks of a ``trainer`` config: devices x num_nodes, or what a launcher says.

    Example:
        >>> count_ranks(Namespace(devices="8", num_nodes=2))
        16
    """
    launched = launched_ranks()
    if launched is not None:
        return launched
    return _count_devices(trainer) * int(trainer.num_nodes)


def _count_devices(trainer: Any) -> int:
    devices = trainer.devices
    if isinstance(devices, str) and devices != "auto":
        numbers = [each for each in devices.split(",") if each.strip()]
        devices = [*numbers] if "," in devices else int(devices)
    if isinstance(devices, list | tuple):
        return len(devices)
    if isinstance(devices, int) and devices > 0:
        return devices
    on_cpu = trainer.accelerator == "cpu" or not CUDAAccelerator.is_available()
    return int((CPUAccelerator if on_cpu else CUDAAccelerator).auto_device_count())


def tell_ranks(trainer: Any, model: Any) -> None:
    """Tell our strategies what a config leaves to them to find out, and refuse what they would.

    Args:
        trainer: Of a config; ``ShardedStrategy`` gets the number of ranks.
        model: Of a config; its class is imported.

    Raises:
        ValueError: For a model that ``SpreadStrategy`` cannot spread over so many ranks.
    """
    strategy = trainer.strategy
    name = (strategy if isinstance(strategy, str) else strategy.class_path).rpartition(".")[2]
    if name in (SpreadStrategy.__name__, "spread"):
        _check_spread(model, count_ranks(trainer))
    if isinstance(strategy, str) and name in (ShardedStrategy.__name__, SpreadStrategy.__name__):
        # a parser takes a class without arguments for the name of a strategy of Lightning's
        trainer.strategy = Namespace(class_path=f"pile_lightning.{name}", init_args=Namespace())  # type: ignore[no-untyped-call]
    if name == ShardedStrategy.__name__:
        settings = trainer.strategy.init_args
        if settings.get("shard") is None and settings.get("num_ranks") is None:
            settings.num_ranks = count_ranks(trainer)


def _check_spread(model: Any, num_ranks: int) -> None:
    module, _, name = model.class_path.rpartition(".")
    kind = getattr(sys.modules[module], name)
    check_spreads(kind)
    if issubclass(kind, Environment):
        kind.check_spread(num_ranks, **model.init_args.as_dict())
