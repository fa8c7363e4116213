"""How fast a run could be: an estimate from peaks, with both bounds of what communication costs.

A step takes the time of its products at a stated share of the GPU's peak, the time of the
optimizer, which is bound by memory, and the time of communication: between all of it hidden behind
computing and none of it. What tensor parallelism sums is waited for in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pile_lightning.parallel import Layout, Recompute
from pile_lightning.plan.hardware import Gpu
from pile_lightning.plan.parameters import ParameterSize
from pile_lightning.plan.traffic import Transfer

__all__ = ["Speed", "estimate_speed"]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of a step, and what follows from them."""

    computing: float
    """Products, recomputed ones included, and the optimizer."""
    hidden: float
    """Communication that computing can hide."""
    waited: float
    """Communication that computing waits for."""
    tokens: int
    """Tokens of a step."""
    flops: float
    """Operations of a step that count, on all ranks."""
    peak: float
    """Operations a second of all ranks at their peak."""

    @property
    def seconds(self) -> tuple[float, float]:
        """Seconds of a step: with all communication hidden that can be, and with none."""
        return (
            max(self.computing, self.hidden) + self.waited,
            self.computing + self.hidden + self.waited,
        )

    @property
    def tokens_per_second(self) -> tuple[float, float]:
        """Tokens a second, in the same order."""
        fast, slow = self.seconds
        return self.tokens / fast, self.tokens / slow

    @property
    def mfu(self) -> tuple[float, float]:
        """Share of the peak that counted operations are (Chowdhery et al., arXiv 2204.02311)."""
        fast, slow = self.seconds
        return self.flops / (fast * self.peak), self.flops / (slow * self.peak)


def estimate_speed(
    gpu: Gpu,
    layout: Layout,
    parameters: Sequence[ParameterSize],
    sent: Sequence[Transfer],
    *,
    tokens: int,
    flops_per_token: float,
    optimizer_flops: float = 0.0,
    checkpointing: Recompute = "none",
    efficiency: float = 0.5,
    ranks_per_node: int = 8,
) -> Speed:
    """Estimate how fast a layout trains.

    Args:
        gpu: The GPU of every rank.
        layout: How the ranks share the work.
        parameters: What the optimizer steps.
        sent: What a rank sends in a step.
        tokens: Tokens of a step.
        flops_per_token: Of forward and backward.
        optimizer_flops: Of the optimizer's products.
        checkpointing: ``full`` computes the forward, a third of the whole, once more.
        efficiency: Share of the GPU's peak that a step reaches where nothing is sent.
        ranks_per_node: GPUs of a node.

    Raises:
        ValueError: For an efficiency that is no share.

    Example:
        >>> from pile_lightning.plan.hardware import find_gpu
        >>> speed = estimate_speed(
        ...     find_gpu("h100"), Layout(), [], [], tokens=10**6, flops_per_token=6e9
        ... )
        >>> [round(share, 2) for share in speed.mfu]
        [0.5, 0.5]
    """
    if not 0 < efficiency <= 1:
        raise ValueError(
            f"efficiency={efficiency} is the share of the GPU's peak that a step reaches; choose "
            f"it above 0 and up to 1, such as 0.5"
        )
    flops = tokens * flops_per_token
    again = 4 / 3 if checkpointing == "full" else 1.0
    reached = gpu.peak * efficiency
    kept = sum(p.on_rank(layout) for p in parameters)
    state = sum(p.state * p.on_rank(layout) / max(1, p.num_bytes) for p in parameters)
    # weights and state are read and written, gradients read
    moved = (3 * kept + 2 * state) / gpu.memory_rate
    stepped = optimizer_flops / (layout.shard * layout.tensor) / reached
    seconds = {
        hidden: sum(
            each.seconds(gpu, ranks_per_node=ranks_per_node)
            for each in sent
            if each.hidden is hidden
        )
        for hidden in (True, False)
    }
    return Speed(
        computing=flops * again / (layout.num_ranks * reached) + moved + stepped,
        hidden=seconds[True],
        waited=seconds[False],
        tokens=tokens,
        flops=flops,
        peak=gpu.peak * layout.num_ranks,
    )
