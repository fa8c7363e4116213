"""What each rank sends in a step: formulas of collectives, by layout.

Of collectives of n ranks over B bytes, each rank sends (n-1)/n * B for an all-gather or a
reduce-scatter and twice that for an all-reduce, which is the least that is possible (Thakur et al.,
Optimization of Collective Communication Operations in MPICH, 2005; Patarasuk and Yuan, 2009).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pile_lightning.parallel import Layout
from pile_lightning.plan.hardware import Gpu
from pile_lightning.plan.memory import Gathering
from pile_lightning.plan.parameters import ROOT, ParameterSize

__all__ = ["Transfer", "transfers"]


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """All collectives of one kind in a step."""

    name: str
    """What is sent."""
    ranks: int
    """Ranks that take part in each."""
    stride: int
    """Distance of neighbours among all ranks."""
    sent: float
    """Bytes that a rank sends in the step."""
    calls: int
    """How many there are."""
    rounds: float
    """Messages that follow one another in each."""
    hidden: bool = True
    """Whether computing can go on meanwhile."""

    def seconds(self, gpu: Gpu, *, ranks_per_node: int) -> float:
        """Return how long they take: latencies and bytes (Hockney, 1994).

        A ring that crosses nodes passes through the network port of each of its ranks in a node.

        Example:
            >>> from pile_lightning.plan.hardware import find_gpu
            >>> whole = Transfer(name="all", ranks=8, stride=1, sent=45e9, calls=1, rounds=7)
            >>> round(whole.seconds(find_gpu("h100"), ranks_per_node=8), 3)
            0.1
        """
        in_node = min(self.ranks, max(1, ranks_per_node // self.stride))
        if self.ranks <= in_node:
            rate, latency = gpu.node_rate, gpu.node_latency
        else:
            rate = min(gpu.node_rate, gpu.network_rate * in_node)
            latency = gpu.network_latency
        return self.sent / rate + self.calls * self.rounds * latency


def transfers(
    layout: Layout,
    parameters: Sequence[ParameterSize],
    *,
    micro_batches: int,
    stream_bytes: int,
    num_sums: int,
    gathering: Gathering,
    recomputes: bool = False,
) -> list[Transfer]:
    """Return what a rank sends in a step.

    DDP sums gradients once a step; FSDP2 gathers and sums in every micro-batch, each block for
    forward and backward (Zhao et al., arXiv 2304.11277, section 3.2), what is in no block once.
    Replicas sum their shards. Tensor-parallel peers sum what every projection adds to the stream,
    and in the backward the gradient of what it reads (Shoeybi et al., arXiv 1909.08053, section 3):
    four sums a layer of attention and feed-forward.

    Args:
        layout: How the ranks share the work.
        parameters: What there is to gather and to sum.
        micro_batches: Of a step.
        stream_bytes: Bytes of what all projections together add to the stream in a micro-batch.
        num_sums: How many projections there are.
        gathering: In which type weights are gathered.
        recomputes: Whether the forward is computed, and so summed, twice.

    Example:
        >>> matrix = ParameterSize(shape=(64, 64), itemsize=4, unit=0)
        >>> sent = transfers(
        ...     Layout(replicate=4),
        ...     [matrix],
        ...     micro_batches=1,
        ...     stream_bytes=0,
        ...     num_sums=0,
        ...     gathering=Gathering(),
        ... )
        >>> sent[0].sent == 2 * 3 / 4 * 64 * 64 * 4
        True
    """
    peers = Layout(tensor=layout.tensor)
    gradients = sum(p.on_rank(peers) for p in parameters)
    found = []
    if layout.shard > 1:
        found += _sharded(layout, parameters, gradients, micro_batches, gathering)
    if layout.replicate > 1:
        times = micro_batches if layout.shard > 1 or layout.tensor > 1 else 1
        found.append(
            _all_reduce(
                "gradients of replicas",
                ranks=layout.replicate,
                stride=layout.shard * layout.tensor,
                num_bytes=times * gradients / layout.shard,
                calls=times * len({p.unit for p in parameters}),
            )
        )
    if layout.tensor > 1:
        times = micro_batches * (3 if recomputes else 2)
        found.append(
            _all_reduce(
                "activations",
                ranks=layout.tensor,
                stride=1,
                num_bytes=times * stream_bytes,
                calls=times * num_sums,
                hidden=False,
            )
        )
    return found


def _sharded(
    layout: Layout,
    parameters: Sequence[ParameterSize],
    gradients: int,
    micro_batches: int,
    gathering: Gathering,
) -> list[Transfer]:
    peers = Layout(tensor=layout.tensor)
    gathered, times = 0.0, 2 if layout.reshard else 1
    for parameter in parameters:
        in_type = (gathering.itemsize or parameter.itemsize) / parameter.itemsize
        gathered += parameter.on_rank(peers) * in_type * (1 if parameter.unit == ROOT else times)
    units = {p.unit for p in parameters}
    part = (layout.shard - 1) / layout.shard
    return [
        Transfer(
            name="weights",
            ranks=layout.shard,
            stride=layout.tensor,
            sent=micro_batches * part * gathered,
            calls=micro_batches * (times * len(units - {ROOT}) + len(units & {ROOT})),
            rounds=layout.shard - 1,
        ),
        Transfer(
            name="gradients",
            ranks=layout.shard,
            stride=layout.tensor,
            sent=micro_batches * part * gradients,
            calls=micro_batches * len(units),
            rounds=layout.shard - 1,
        ),
    ]


def _all_reduce(
    name: str, *, ranks: int, stride: int, num_bytes: float, calls: int, hidden: bool = True
) -> Transfer:
    return Transfer(
        name=name,
        ranks=ranks,
        stride=stride,
        sent=2 * (ranks - 1) / ranks * num_bytes,
        calls=calls,
        rounds=2 * math.ceil(math.log2(ranks)),  # along a tree
        hidden=hidden,
    )
