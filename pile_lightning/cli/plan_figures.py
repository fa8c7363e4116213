"""The figures of a plan: what a run needs under its own layout and under others."""

from dataclasses import dataclass
from functools import cached_property

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pile_lightning.cli.plan_run import Run
from pile_lightning.nn import Counted
from pile_lightning.parallel import RECOMPUTE, Layout, Recompute
from pile_lightning.plan import (
    ParameterCounts,
    RankMemory,
    Speed,
    StepProfile,
    Transfer,
    alternatives,
    count_parameters,
    estimate_speed,
    profile_step,
    rank_memory,
    transfers,
)
from pile_lightning.plan.parameters import summed_features, tensor_ranks

__all__ = ["Figures"]

_FITS = 0.9
"""Share of a GPU's memory that a run may fill: the rest is the driver's, and fragments."""


@dataclass(frozen=True)
class Figures:
    """Computed as they are asked for, and once.

    Args:
        run: The run.
        efficiency: Share of the GPU's peak that a step reaches where nothing is sent.
    """

    run: Run
    efficiency: float = 0.5

    @cached_property
    def network(self) -> nn.Module:
        """The network, of tensors without values."""
        with FakeTensorMode():
            return self.run.make_module().built_network

    @cached_property
    def counts(self) -> ParameterCounts:
        """How many parameters there are."""
        return count_parameters(self.network)

    @property
    def flops_are_counted(self) -> bool:
        """Whether the network knows its cost."""
        return isinstance(self.network, Counted)

    @cached_property
    def flops_per_token(self) -> float:
        """Operations of forward and backward; where the network does not know, six a parameter.

        Six a parameter that is multiplied, two forward and four backward: Kaplan et al., arXiv
        2001.08361, section 2.1.
        """
        if isinstance(self.network, Counted):
            return self.network.flops_per_token(self.run.data.seq_len)
        return 6.0 * (self.counts.matrices + self.counts.tables)

    @cached_property
    def layouts(self) -> list[Layout]:
        """The run's own layout and the usual others, without one that it equals."""
        run = self.run
        tensor = tensor_ranks(self.network, min(run.layout.num_ranks, run.ranks_per_node))
        others = alternatives(
            run.layout.num_ranks, ranks_per_node=run.ranks_per_node, tensor=tensor
        )
        return [run.layout, *(layout for layout in others if layout != run.layout)]

    def profile(self, layout: Layout, checkpointing: Recompute) -> StepProfile:
        """Return what a step holds with the rows of one rank of a layout."""
        accumulates = self.run.micro_batches(layout) > 1
        key = (self.run.rows(layout), checkpointing, accumulates)
        if key not in self._profiles:
            self._profiles[key] = profile_step(
                self.run.make_module,
                rows=key[0],
                seq_len=self.run.data.seq_len,
                precision=self.run.precision,
                checkpointing=checkpointing,
                accumulate=accumulates,
                device=self.run.device,
            )
        return self._profiles[key]

    @cached_property
    def _profiles(self) -> dict[tuple[int, Recompute, bool], StepProfile]:
        return {}

    @cached_property
    def kinds(self) -> tuple[Recompute, ...]:
        """The kinds of checkpointing that the network allows."""
        has_blocks = isinstance(getattr(self.network, "blocks", None), nn.ModuleList)
        return RECOMPUTE if has_blocks else ("none",)

    def memory(self, layout: Layout, checkpointing: Recompute | None = None) -> RankMemory:
        """Return what a rank of a layout holds; by default with the run's own checkpointing."""
        profile = self.profile(layout, checkpointing or self.run.checkpointing)
        return rank_memory(profile, layout, gathering=self.run.gathering)

    def transfers(self, layout: Layout) -> list[Transfer]:
        """Return what a rank sends in a step."""
        run, features = self.run, summed_features(self.network)
        positions = run.rows(layout) * run.data.seq_len
        return transfers(
            layout,
            self.profile(layout, run.checkpointing).parameters,
            micro_batches=run.micro_batches(layout),
            stream_bytes=positions * sum(features) * run.precision.itemsize,
            num_sums=len(features),
            recomputes=run.checkpointing == "full",
            gathering=run.gathering,
        )

    def speed(self, layout: Layout) -> Speed | None:
        """Return how fast a layout trains, or None where no GPU is named."""
        run = self.run
        if run.gpu is None:
            return None
        profile = self.profile(layout, run.checkpointing)
        return estimate_speed(
            run.gpu,
            layout,
            profile.parameters,
            self.transfers(layout),
            tokens=run.tokens,
            flops_per_token=self.flops_per_token,
            optimizer_flops=profile.optimizer_flops,
            checkpointing=run.checkpointing,
            efficiency=self.efficiency,
            ranks_per_node=run.ranks_per_node,
        )

    @cached_property
    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint: weights and optimizer state."""
        parameters = self.profile(self.run.layout, self.run.checkpointing).parameters
        return sum(p.num_bytes + p.state for p in parameters)

    def fits(self, memory: RankMemory) -> bool:
        """Return whether a GPU's memory holds it, with room for the driver and for fragments."""
        return self.run.gpu is None or memory.peak <= _FITS * self.run.gpu.memory

    def first_that_fits(self) -> tuple[Layout, Recompute] | None:
        """Return the nearest to what is configured that fits: checkpointing before layouts."""
        for layout in self.layouts:
            if layout.num_ranks != self.run.layout.num_ranks:
                continue
            for kind in self.kinds:
                if self.fits(self.memory(layout, kind)):
                    return layout, kind
        return None
