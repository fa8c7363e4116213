"""How the losses of members are computed on the batch that they share: the seam between engines."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pile_lightning.batch import TokenBatch
from pile_lightning.modules.environment.member import Member

__all__ = ["Engine", "Sequential"]


class Engine(ABC):
    """Computes the summed losses of members on a batch.

    An engine may give the members' parameters another home, such as one stacked tensor, before the
    optimizers are made. All else stays with each member: optimizer, clipping, metrics, checkpoint.
    """

    @abstractmethod
    def prepare(self, members: Sequence[Member], batch: TokenBatch) -> None:
        """Get ready for a batch: called before ``losses``, on all ranks with the same members.

        Args:
            members: Those that train.
            batch: Rows.
        """

    @abstractmethod
    def losses(self, members: Sequence[Member], batch: TokenBatch) -> dict[str, Tensor | Exception]:
        """Return by name the sum of each member's loss over the batch, or what went wrong.

        Args:
            members: Those that train and have not failed in this step, on this rank.
            batch: Rows.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return what a run that goes on has to know, as plain data."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take that back."""


class Sequential(Engine):
    """One after another: members of any class and shape, each exactly as it would be alone."""

    def prepare(self, members: Sequence[Member], batch: TokenBatch) -> None:
        """Do nothing: each is as it is."""

    def losses(self, members: Sequence[Member], batch: TokenBatch) -> dict[str, Tensor | Exception]:
        """Compute each member's loss; one that fails does not keep the others from it."""
        found: dict[str, Tensor | Exception] = {}
        for member in members:
            try:
                with member.stream.drawn():
                    found[member.name] = member.module.loss_sum(batch)
            except Exception as error:  # a user's own network may raise anything
                found[member.name] = error
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: nothing is decided."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""
