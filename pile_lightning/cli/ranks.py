"""How many ranks a run will have, from its config, before any of them is there."""

from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator

from pile_lightning.parallel import ShardedStrategy, launched_ranks

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


def tell_ranks(trainer: Any) -> None:
    """Fill in the number of ranks where a config leaves it to ``ShardedStrategy`` to find out."""
    name = ShardedStrategy.__name__
    if isinstance(trainer.strategy, str) and trainer.strategy.rpartition(".")[2] == name:
        # a parser takes a class without arguments for the name of a strategy of Lightning's
        trainer.strategy = Namespace(class_path=f"pile_lightning.{name}", init_args=Namespace())  # type: ignore[no-untyped-call]
    strategy = trainer.strategy
    if isinstance(strategy, str) or strategy.class_path.rpartition(".")[2] != name:
        return
    if strategy.init_args.get("shard") is None and strategy.init_args.get("num_ranks") is None:
        strategy.init_args.num_ranks = count_ranks(trainer)
