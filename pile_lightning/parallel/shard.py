"""FSDP2: every data-parallel rank holds a part of each parameter and gathers a block at a time."""

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from pile_lightning.parallel.blocks import blocks_of
from pile_lightning.parallel.layout import Layout

__all__ = ["shard_network"]

# what a network is called by beside ``forward``
_METHODS = ("hidden", "next_logits")


def shard_network(
    network: nn.Module,
    mesh: DeviceMesh,
    *,
    layout: Layout,
    compute_dtype: torch.dtype | None = None,
) -> None:
    """Spread the parameters of ``network`` over the data-parallel ranks of ``mesh``, in place.

    Args:
        network: Split into tensor-parallel parts, checkpointed and compiled before.
        mesh: As ``Layout.mesh`` makes it.
        layout: Its numbers.
        compute_dtype: What parameters are gathered in; None for what they are stored in. Gradients
            are summed in float32 all the same.
    """
    data = mesh["replicate", "shard"] if layout.replicate > 1 else mesh["shard"]
    # inputs keep their type: rotary angles lose their meaning in bf16
    precision = MixedPrecisionPolicy(cast_forward_inputs=False)
    if compute_dtype is not None:
        precision = MixedPrecisionPolicy(
            param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    offload = CPUOffloadPolicy() if layout.cpu_offload else OffloadPolicy()
    for block in blocks_of(network):
        if block is not network:
            fully_shard(
                block,
                mesh=data,
                reshard_after_forward=layout.reshard,
                mp_policy=precision,
                offload_policy=offload,
            )
    # the root stays whole from its forward on: the loss reads the head's matrix after it
    fully_shard(
        network,
        mesh=data,
        reshard_after_forward=False,
        mp_policy=precision,
        offload_policy=offload,
    )
    for name in _METHODS:
        if hasattr(network, name):
            register_fsdp_forward_method(network, name)
