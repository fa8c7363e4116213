"""Tensor parallelism: each rank computes some heads of attention and some features between.

The default plan knows this package's layers wherever they stand in a network, so that a network of
your own that is made of them needs none. Another brings a ``tensor_plan``::

    class Mine(nn.Module):
        def tensor_plan(self):
            return {"up": ColwiseParallel(), "down": RowwiseParallel()}

The embedding and the head are split by ids. The residual stream is whole on every rank: norms and
tables are computed by all peers alike. Two sums over the peers a layer join what they computed
(Shoeybi et al., Megatron-LM, 2019).
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from pile_lightning.nn import Attention, CrossAttention, FeedForward

__all__ = ["TensorParallel", "split_layers"]

_HEADS = 1  # dimension of the heads in (batch, heads, seq, head_dim)


@runtime_checkable
class TensorParallel(Protocol):
    """A network with a plan of its own."""

    def tensor_plan(self) -> Mapping[str, ParallelStyle]:
        """Return a style for each sub-module by name, as for ``parallelize_module`` of torch."""
        ...


def split_layers(network: nn.Module, mesh: DeviceMesh) -> None:
    """Split the layers of ``network`` over the ranks of a mesh of one dimension.

    Raises:
        ValueError: Where heads or features do not divide, or nothing is known to be split.
    """
    if isinstance(network, TensorParallel):
        parallelize_module(network, mesh, dict(network.tensor_plan()))
        return
    layers = [
        module
        for module in network.modules()
        if isinstance(module, Attention | CrossAttention | FeedForward)
    ]
    if not layers:
        raise ValueError(
            f"tensor={mesh.size()}: {type(network).__name__} has none of this package's layers and "
            f"brings no plan; give it a method tensor_plan() that returns a style for each of its "
            f"matrices, or set tensor to 1 and shard it instead"
        )
    for layer in layers:
        if isinstance(layer, FeedForward):
            _split_feed_forward(layer, mesh)
        else:
            _split_attention(layer, mesh)
    _split_vocabulary(network, mesh)


def _split_vocabulary(network: nn.Module, mesh: DeviceMesh) -> None:
    """Give each peer some rows of the token table and of the head, which may be the same."""
    for module in network.modules():
        role = getattr(module, "role", None)
        if isinstance(module, nn.Embedding) and role == "embedding":
            parallelize_module(module, mesh, RowwiseParallel(input_layouts=Replicate()))
        elif isinstance(module, nn.Linear) and role == "head":
            parallelize_module(module, mesh, ColwiseParallel(output_layouts=Replicate()))


def _split_feed_forward(layer: FeedForward, mesh: DeviceMesh) -> None:
    _check(mesh, d_ff=layer.up.out_features)
    plan: dict[str, ParallelStyle] = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    if layer.gate is not None:
        plan["gate"] = ColwiseParallel()
    parallelize_module(layer, mesh, plan)
    layer.register_forward_pre_hook(_InputOfPeers(mesh), with_kwargs=True)


def _split_attention(layer: Attention | CrossAttention, mesh: DeviceMesh) -> None:
    head_dim = layer.head_dim
    _check(
        mesh,
        num_heads=layer.q.out_features // head_dim,
        num_kv_heads=layer.k.out_features // head_dim,
    )
    plan: dict[str, ParallelStyle] = {name: ColwiseParallel() for name in ("q", "k", "v")}
    plan["out"] = RowwiseParallel()
    for name in ("q_norm", "k_norm"):
        norm = getattr(layer, name, None)
        if norm is not None and any(True for _ in norm.parameters()):
            # each peer norms its own heads, and the gain's gradient is their sum
            plan[name] = SequenceParallel(sequence_dim=_HEADS, use_local_output=True)
    parallelize_module(layer, mesh, plan)
    for name in ("q_conv", "k_conv", "v_conv"):
        if (conv := getattr(layer, name, None)) is not None:
            conv.shares = nn.ParameterList(
                nn.Parameter(distribute_tensor(share, mesh, [Shard(0)]), share.requires_grad)
                for share in conv.shares
            )
    layer.register_forward_pre_hook(_InputOfPeers(mesh), with_kwargs=True)


class _InputOfPeers:
    """Takes what a layer reads, whole on every peer, so that one sum joins its gradients.

    Read as it is by q, k and v, each would sum over the peers on its own.
    """

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh = mesh

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        whole = tuple(self._whole(each) if isinstance(each, Tensor) else each for each in args)
        if isinstance(values := kwargs.get("values"), Tensor):
            # of what is added to the values, a peer takes the part of its own heads
            part = self._whole(values).redistribute(placements=[Shard(-1)]).to_local()
            kwargs = {**kwargs, "values": part}
        return whole, kwargs

    def _whole(self, x: Tensor) -> DTensor:
        return DTensor.from_local(x, self.mesh, [Replicate()], run_check=False)


def _check(mesh: DeviceMesh, **sizes: int) -> None:
    for name, size in sizes.items():
        if size % mesh.size():
            raise ValueError(
                f"tensor={mesh.size()} ranks cannot share {name}={size} evenly; choose a divisor "
                f"of it, or change {name}"
            )
