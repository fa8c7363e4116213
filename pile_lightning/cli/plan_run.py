"""The run that a config describes, as far as a plan needs it: ranks, rows, types and layout."""

import copy
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from jsonargparse import ArgumentParser

from pile_lightning.cli.pile_cli import choose_precision
from pile_lightning.cli.ranks import count_ranks
from pile_lightning.data import TextModule
from pile_lightning.modules import Environment, LanguageModule
from pile_lightning.parallel import RECOMPUTE, Layout, Recompute
from pile_lightning.plan import Gathering, Gpu, Precision, find_gpu

__all__ = ["Run", "find_layout", "make_run"]

_LEFT_OUT = {"callbacks": None, "logger": None, "plugins": None, "profiler": None}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a config says about a run."""

    data: TextModule
    """Its text."""
    module: LanguageModule
    """What it trains, not built."""
    layout: Layout
    """How ranks share the work."""
    ranks_per_node: int
    """Ranks with fast links between them."""
    gpu: Gpu | None
    """What it runs on, if that is named."""
    device: str
    """Type of device that it runs on."""
    precision: Precision
    """Of weights and products."""
    checkpointing: Recompute
    """What each block keeps for the backward."""
    accumulate: int
    """Micro-batches of a step under the run's own layout."""
    max_steps: int
    """Optimizer steps."""

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.data.batch_size * self.data.seq_len

    @property
    def gathering(self) -> Gathering:
        """How FSDP2 makes weights whole."""
        mixed = self.precision.products is not None
        return Gathering(
            itemsize=self.precision.itemsize if mixed else None,
            waiting=None if self.device == "cpu" else 1,
        )

    @property
    def make_module(self) -> Callable[[], LanguageModule]:
        """What makes the module anew."""
        return lambda: copy.deepcopy(self.module)

    def rows(self, layout: Layout) -> int:
        """Return the rows that a rank of a layout has at a time, a part of one counted whole.

        Other layouts than the run's have as many as it has, and accumulate as often as they need.
        """
        rows = self.data.batch_size
        own = -(-rows // (self.layout.num_row_ranks * self.accumulate))
        return min(own, -(-rows // layout.num_row_ranks))

    def micro_batches(self, layout: Layout) -> int:
        """Return how often a rank of a layout takes rows in a step."""
        if layout == self.layout:
            return self.accumulate
        return -(-self.data.batch_size // (layout.num_row_ranks * self.rows(layout)))


def make_run(parser: ArgumentParser, settings: Namespace) -> Run:
    """Make what a plan needs of the run that settings describe; nothing large is made.

    Raises:
        TypeError: For a module or data that are none of language, and for several models.
        ValueError: For a number, GPU, precision or strategy that a plan cannot work with.
    """
    config = cast(Any, copy.deepcopy(settings))
    strategy = config.trainer.strategy
    config.trainer.strategy = "auto"
    for name, nothing in _LEFT_OUT.items():
        config.trainer[name] = nothing
    of_module = config.model.get("init_args")
    checkpointing = getattr(of_module, "activation_checkpointing", None) or "none"
    if hasattr(of_module, "activation_checkpointing"):
        of_module.activation_checkpointing = "none"  # a plan tries all kinds
    if hasattr(of_module, "compile"):
        of_module.compile = False
    made = cast(Any, parser.instantiate(config))
    if isinstance(made.model, Environment):
        raise TypeError(
            "a plan is of one model, and an Environment trains several; plan a member by itself: "
            "take its class_path and init_args for the model"
        )
    if not isinstance(made.model, LanguageModule) or not isinstance(made.data, TextModule):
        raise TypeError(
            f"{type(made.model).__name__} and {type(made.data).__name__} are not both of language, "
            f"so that a plan knows neither loss nor rows; derive them from LanguageModule and "
            f"TextModule"
        )
    trainer, gpu = settings.trainer, None if settings.gpu is None else find_gpu(settings.gpu)
    num_ranks = count_ranks(trainer) if settings.gpus is None else settings.gpus
    if num_ranks < 1 or settings.gpus_per_node < 1:
        raise ValueError(
            f"gpus={num_ranks} and gpus_per_node={settings.gpus_per_node} are counts; choose 1 or "
            f"more of each"
        )
    on_cpu = gpu is None and (trainer.accelerator == "cpu" or not torch.cuda.is_available())
    return Run(
        data=made.data,
        module=made.model,
        layout=find_layout(strategy, num_ranks),
        ranks_per_node=settings.gpus_per_node,
        gpu=gpu,
        device="cpu" if on_cpu else "cuda",
        precision=_precision(trainer, gpu),
        checkpointing=_checkpointing(checkpointing),
        accumulate=trainer.accumulate_grad_batches,
        max_steps=trainer.max_steps,
    )


def find_layout(strategy: Any, num_ranks: int) -> Layout:
    """Return how a trainer's strategy shares a run among ranks.

    Args:
        strategy: A name, or a class with arguments, as a config has it.
        num_ranks: All ranks.

    Raises:
        ValueError: For sizes that do not make up the ranks, or a strategy that is not known.

    Example:
        >>> find_layout("ddp", 4).name
        'ddp 4'
        >>> from jsonargparse import Namespace
        >>> sharded = Namespace(class_path="ShardedStrategy", init_args=Namespace(tensor=2))
        >>> find_layout(sharded, 8).name
        'FSDP2 4 x tensor 2'
    """
    name = strategy if isinstance(strategy, str) else strategy.class_path
    kind = name.rpartition(".")[2]
    init_args = None if isinstance(strategy, str) else strategy.get("init_args")
    arguments = {} if init_args is None else vars(init_args)
    if kind in ("auto", "DDPStrategy", "SingleDeviceStrategy") or kind.startswith("ddp"):
        return Layout(replicate=num_ranks)
    if kind.startswith("fsdp") or kind.endswith("FSDPStrategy"):
        return Layout(shard=num_ranks)
    if kind not in ("ShardedStrategy", "ModelParallelStrategy"):
        raise ValueError(
            f"trainer.strategy={name!r} is one that a plan does not know; it knows ddp, fsdp, "
            f"ShardedStrategy and ModelParallelStrategy"
        )
    replicate, tensor = _size(arguments, "replicate") or 1, _size(arguments, "tensor") or 1
    shard = _size(arguments, "shard")
    if kind == "ModelParallelStrategy":
        tensor = _size(arguments, "tensor_parallel_size") or 1
        shard = _size(arguments, "data_parallel_size")
    rest = num_ranks // (replicate * tensor)
    if shard is None:
        shard = max(1, rest)
    elif "replicate" not in arguments or replicate == 1:
        replicate = max(1, num_ranks // (shard * tensor))
    layout = Layout(
        replicate=replicate,
        shard=shard,
        tensor=tensor,
        reshard=arguments.get("reshard", True),
        cpu_offload=arguments.get("cpu_offload", False),
    )
    if layout.num_ranks != num_ranks:
        raise ValueError(
            f"replicate={replicate} x shard={shard} x tensor={tensor} are {layout.num_ranks} "
            f"ranks, and the run has {num_ranks}; choose sizes whose product it is, or other gpus"
        )
    return layout


def _size(arguments: dict[str, Any], name: str) -> int | None:
    size = arguments.get(name)
    return None if size in (None, "auto") else int(size)


def _precision(trainer: Any, gpu: Gpu | None) -> Precision:
    if trainer.precision is not None:
        return Precision.of(trainer.precision)
    return Precision.of("bf16-mixed" if gpu is not None else choose_precision(trainer.accelerator))


def _checkpointing(kind: str) -> Recompute:
    if kind not in RECOMPUTE:
        raise ValueError(
            f"activation_checkpointing={kind!r} is unknown; choose one of {', '.join(RECOMPUTE)}"
        )
    return kind
