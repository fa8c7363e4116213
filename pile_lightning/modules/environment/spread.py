"""Members that are spread over ranks: which are here, and what of the others has to be."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import nn

from pile_lightning.config import from_plain
from pile_lightning.modules.environment.parts import join_parts, part_of_members
from pile_lightning.modules.environment.placement import check_num_ranks, coupled_groups, place
from pile_lightning.modules.environment.sharing import as_shares
from pile_lightning.modules.environment.speaking import SpeaksAsBest
from pile_lightning.modules.environment.specs import member_specs
from pile_lightning.modules.environment.together import Couplings
from pile_lightning.parallel import SpreadStrategy

__all__ = ["SpreadOverRanks"]


class SpreadOverRanks(SpeaksAsBest):
    """Several models, of which ``SpreadStrategy`` trains each on one rank.

    Those of other ranks have a network without memory here, so that parameters have the same names
    and numbers on all ranks.
    """

    members: nn.ModuleDict
    couplings: Couplings
    is_spread: bool = False
    """Whether other ranks have other members."""
    ranks: Mapping[str, int] | None = None
    """The rank of each member, once they are placed."""

    @staticmethod
    def check_spread(
        num_ranks: int,
        *,
        members: Any = None,
        base: Any = None,
        sweep: Any = None,
        coupling: Any = None,
        share: Any = None,
        **others: Any,
    ) -> None:
        """Raise what spreading an environment over ranks would, before there is any data.

        Args:
            num_ranks: How many there are.
            members: As for ``Environment``.
            base: As for ``Environment``.
            sweep: As for ``Environment``.
            coupling: As for ``Environment``, as plain data.
            share: As for ``Environment``, as plain data.
            others: Not looked at.

        Raises:
            ValueError: For more ranks than there are members to spread.
        """
        names = list(member_specs(members, base, sweep))
        groups = coupled_groups(names, from_plain(coupling or []), as_shares(share))
        check_num_ranks(groups, num_ranks)

    def check_ranks(self) -> None:
        """See whether members are to be spread, and refuse ranks that cannot have them.

        Raises:
            ValueError: For more ranks than there are members to spread, and for a module whose
                members other ranks have, in a run that does not spread them.
        """
        trainer = self.trainer
        self.is_spread = isinstance(trainer.strategy, SpreadStrategy) and trainer.world_size > 1
        if self.is_spread:
            check_num_ranks(self._groups(), trainer.world_size)
        elif missing := [member.name for member in self.roster if not member.here]:
            raise ValueError(
                f"members {', '.join(missing)} were trained by other ranks, and are not whole "
                f"here; load the checkpoint, which has all of them"
            )

    def _groups(self) -> list[list[str]]:
        names = [member.name for member in self.roster]
        return coupled_groups(names, self.couplings.couplings, self.roster.sharing.shares)

    def place_members(self) -> None:
        """Say which members are here, once: all of them, unless they are spread."""
        if not self.is_spread or self.ranks is not None:
            return
        sizes = {}
        for member in self.roster:
            member.outline()
            sizes[member.name] = member.num_parameters()
        self.ranks = place(self._groups(), sizes, num_ranks=self.trainer.world_size)
        for member in self.roster:
            member.here = self.ranks[member.name] == self.trainer.global_rank

    def lend_best(self) -> None:
        """Bring the best member to the ranks that do not train it: a collective of all ranks."""
        if self.ranks is None:
            return
        best = self.roster.best()
        for member in self.roster:
            if member.lent and member is not best:
                member.outline()
        if not best.here and not best.lent:
            best.borrow(self.trainer.strategy.root_device)
            self.trainer.precision_plugin.convert_module(best.module)
        for tensor in best.module.state_dict().values():
            dist.broadcast(tensor, src=self.ranks[best.name])

    # -- for the strategy -------------------------------------------------------------------------

    @contextmanager
    def without_others(self) -> Iterator[None]:
        """Be without the members of other ranks, which cannot be moved, meanwhile."""
        others = [member for member in self.roster if not member.here]
        for member in others:
            self.members[member.key] = nn.Module()
        try:
            yield
        finally:
            for member in others:
                self.members[member.key] = member.module

    def part_of_checkpoint(self, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a checkpoint holds of the members that are here."""
        return part_of_members(checkpoint, [member.name for member in self.roster if member.here])

    def join_checkpoint(
        self, checkpoint: Mapping[str, Any], parts: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Return a checkpoint with the members of all ranks."""
        return join_parts(checkpoint, parts)
