"""What each rank holds at the peak of a step, under any layout: arithmetic on a profile.

A profile says what is live after every operation of a step on one device, by kind. A layout scales
the kinds: weights, gradients and optimizer state by the shard and by features, activations between
heads by features only, logits by ids. What communication holds is added: with FSDP2 the block that
is computed is whole and the next one on its way (Zhao et al., PyTorch FSDP, arXiv 2304.11277,
section 3.3), and what is in no block is whole from its forward to the end of the backward; DDP
holds its buckets, a second copy of the gradients (Li et al., PyTorch Distributed, arXiv 2006.15704,
section 4.2).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pile_lightning.parallel import Layout
from pile_lightning.plan.live_bytes import Kind
from pile_lightning.plan.parameters import ROOT, ParameterSize
from pile_lightning.plan.step import Curve, StepProfile

__all__ = ["Gathering", "RankMemory", "rank_memory"]

Course = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Bytes of one rank at the peak of a step, by what they are for."""

    moment: str
    """When the peak is: forward, backward or step."""
    weights: int
    """Parameters and buffers that the rank keeps."""
    gradients: int
    """Their gradients, and the buckets in which DDP sums them."""
    optimizer: int
    """What the optimizer keeps."""
    gathered: int
    """Weights and gradients of the blocks that are whole for a while."""
    activations: int
    """What the forward leaves for the backward, with copies of weights in autocast's type."""
    head: int
    """Logits, the loss, and what the head leaves for the backward."""
    other: int
    """The batch, and what the backward or the optimizer hold for a moment."""

    @property
    def peak(self) -> int:
        """All together."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """The parts by name."""
        return {name: part for name, part in asdict(self).items() if name != "moment"}


@dataclass(frozen=True, kw_only=True)
class Gathering:
    """How FSDP2 makes the weights of a block whole, and sums its gradients."""

    itemsize: int | None = None
    """Bytes of a number of a whole weight, where it is gathered in the type that products are
    computed in; None for the weights' own."""
    waiting: int | None = 1
    """Blocks whose gradients wait to be summed; None for all, as over gloo, which may lag behind by
    that much."""


def rank_memory(
    profile: StepProfile, layout: Layout, *, gathering: Gathering = Gathering()
) -> RankMemory:
    """Return what the rank that holds most has in memory at the peak.

    Args:
        profile: One step with as many rows as one rank has.
        layout: How the ranks share the work.
        gathering: How FSDP2 makes weights whole.
    """
    parameters = profile.parameters
    own = sum(p.on_rank(layout) for p in parameters)
    share = own / max(1, sum(p.num_bytes for p in parameters))
    buffers = profile.kept[Kind.WEIGHTS] + profile.kept[Kind.SPLIT_WEIGHTS]
    buffers -= sum(p.num_bytes for p in parameters)
    buckets = sum(p.num_bytes for p in parameters) if _is_ddp(layout) else 0
    state = sum(p.state * p.on_rank(layout) // max(1, p.num_bytes) for p in parameters)
    if layout.cpu_offload:
        own = state = 0
        share = 0.0
    in_type = layout.shard > 1 and gathering.itemsize is not None
    moments: dict[str, Curve] = {
        "forward": profile.forward,
        "backward": profile.backward,
        "step": profile.step,
    }
    found = []
    for moment, curve in moments.items():
        columns = _columns(curve, layout, share=share, in_step=moment == "step")
        if in_type:  # gathered as they are multiplied: nothing is left to cast
            columns["activations"] = columns["activations"] - _casts(curve, layout)
        columns["gathered"] = _gathered(curve, parameters, layout, gathering, moment)
        at = int(np.argmax(sum(columns.values())))
        parts = {name: round(float(column[at])) for name, column in columns.items()}
        parts["gradients"] += buckets
        found.append(RankMemory(moment=moment, weights=own + buffers, optimizer=state, **parts))
    return max(found, key=lambda memory: memory.peak)


def _is_ddp(layout: Layout) -> bool:
    return layout.replicate > 1 and layout.shard == layout.tensor == 1


def _columns(curve: Curve, layout: Layout, *, share: float, in_step: bool) -> dict[str, Course]:
    """Return the course of the parts that change while a step is taken."""
    split = curve[:, Kind.SPLIT_ACTIVATIONS] / layout.tensor
    return {
        "gradients": (curve[:, Kind.GRADIENTS] + curve[:, Kind.ROOT_GRADIENTS]) * share,
        "activations": curve[:, Kind.ACTIVATIONS] + split + _casts(curve, layout),
        "head": curve[:, Kind.HEAD] / layout.tensor,
        # an optimizer that needs whole matrices spreads them over the ranks
        "other": curve[:, Kind.OTHER] * (share if in_step else 1.0),
    }


def _casts(curve: Curve, layout: Layout) -> Course:
    casts: Course = curve[:, Kind.CASTS] + curve[:, Kind.SPLIT_CASTS] / layout.tensor
    return casts


def _gathered(
    curve: Curve,
    parameters: Iterable[ParameterSize],
    layout: Layout,
    gathering: Gathering,
    moment: str,
) -> Course:
    """Return the course of what FSDP2 holds whole, beside the shards."""
    if layout.shard == 1 or moment == "step":
        return np.zeros(len(curve))
    peers = Layout(tensor=layout.tensor)
    weights: dict[int, float] = {ROOT: 0.0}
    gradients: dict[int, int] = {ROOT: 0}
    for parameter in parameters:
        unit, whole = parameter.unit, parameter.on_rank(peers)
        in_type = (gathering.itemsize or parameter.itemsize) / parameter.itemsize
        weights[unit] = weights.get(unit, 0.0) + whole * in_type
        gradients[unit] = gradients.get(unit, 0) + whole
    root = weights.pop(ROOT)
    del gradients[ROOT]
    # the one that is computed, what it was received in, and what the next one is received in
    blocks = 3 * max(weights.values(), default=0.0)
    if not layout.reshard:
        root, blocks = root + sum(weights.values()), blocks / 3
    if moment == "forward":
        return root + np.where(curve[:, Kind.HEAD] > 0, 0.0, blocks)
    waiting = len(gradients) if gathering.waiting is None else gathering.waiting
    waits = waiting * max(gradients.values(), default=0)
    # summed at the end of the backward
    late = curve[:, Kind.ROOT_GRADIENTS] * (1 - 1 / layout.shard)
    return root + blocks + waits + late
