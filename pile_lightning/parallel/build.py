"""From a config to a network on its devices: split, recomputed, compiled, sharded, filled."""

from collections.abc import Callable

import torch
from lightning import LightningModule
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from pile_lightning.parallel.compile import compile_blocks
from pile_lightning.parallel.layout import Layout
from pile_lightning.parallel.materialize import materialize
from pile_lightning.parallel.recompute import Recompute, recompute_blocks
from pile_lightning.parallel.shard import shard_network
from pile_lightning.parallel.strategy import ShardedStrategy
from pile_lightning.parallel.tensor import split_layers

__all__ = ["build_for", "build_network", "build_sharded"]


def build_for(
    module: LightningModule,
    build: Callable[[], nn.Module],
    *,
    recompute: Recompute = "none",
    compile: bool = False,
) -> nn.Module:
    """Build the network of ``module``, whole or as its trainer's strategy spreads it over ranks.

    Args:
        module: In ``configure_model``.
        build: Makes the network.
        recompute: Activation checkpointing of its blocks.
        compile: Compile its blocks.

    Raises:
        TypeError: For a strategy that leaves it open how a network is spread.
    """
    if module.device_mesh is None:
        return build_network(build, recompute=recompute, compile=compile)
    strategy = module.trainer.strategy
    if not isinstance(strategy, ShardedStrategy):
        raise TypeError(
            f"{type(strategy).__name__} leaves the sharding of a network to its module; use "
            f"pile_lightning.ShardedStrategy, which says how, in its place"
        )
    return build_sharded(
        build,
        layout=strategy.layout,
        mesh=strategy.mesh,
        device=strategy.root_device,
        recompute=recompute,
        compile=compile,
        compute_dtype=torch.bfloat16 if module.trainer.precision == "bf16-mixed" else None,
    )


def build_network(
    build: Callable[[], nn.Module], *, recompute: Recompute = "none", compile: bool = False
) -> nn.Module:
    """Build a network that is whole on every rank.

    Args:
        build: Makes it.
        recompute: Activation checkpointing of its blocks.
        compile: Compile its blocks.
    """
    network = build()
    recompute_blocks(network, recompute)
    if compile:
        compile_blocks(network)
    return network


def build_sharded(
    build: Callable[[], nn.Module],
    *,
    layout: Layout,
    mesh: DeviceMesh,
    device: torch.device,
    recompute: Recompute = "none",
    compile: bool = False,
    compute_dtype: torch.dtype | None = None,
) -> nn.Module:
    """Build a network that is spread over ranks, with the weights that one whole would have.

    A network without buffers whose ``reset_parameters`` fills all of it is built without memory,
    and filled when it is spread; another is built whole on every rank first.

    Args:
        build: Makes it.
        layout: How many ranks share what.
        mesh: As ``layout.mesh`` makes it.
        device: This rank's.
        recompute: Activation checkpointing of its blocks.
        compile: Compile its blocks.
        compute_dtype: What parameters are gathered in.
    """
    empty = _build_empty(build)
    network = build() if empty is None else empty
    if layout.tensor > 1:
        split_layers(network, mesh["tensor"])
    # this order: what is recomputed is compiled, and gathering stays outside of both
    recompute_blocks(network, recompute)
    if compile:
        compile_blocks(network)
    if layout.num_row_ranks > 1 or layout.tensor == 1:
        shard_network(network, mesh, layout=layout, compute_dtype=compute_dtype)
    if empty is not None:
        materialize(network, torch.device("cpu") if layout.cpu_offload else device)
    return network


def _build_empty(build: Callable[[], nn.Module]) -> nn.Module | None:
    """Build a network on the meta device, or return None where it could not be filled later."""
    try:
        with torch.device("meta"):
            network = build()
    except RuntimeError:  # it looks at numbers while it is made: it is built whole instead
        return None
    refills = callable(getattr(network, "reset_parameters", None))
    return network if refills and not any(True for _ in network.buffers()) else None
