"""What members log: under their names, and told to all ranks, whichever they train on."""

import math
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from pile_lightning.checkpoint.ranks import gather
from pile_lightning.modules.environment.member import Member
from pile_lightning.modules.environment.spread import SpreadOverRanks

__all__ = ["TellsOfMembers"]

_Logged = tuple[Any, tuple[Any, ...], dict[str, Any]]


class TellsOfMembers(SpreadOverRanks):
    """Several models, each of which logs as if it were alone."""

    def __init__(self) -> None:
        super().__init__()
        self._untold: dict[tuple[str, str], list[_Logged]] = {}

    def _log_of(self, member: Member, name: str, value: Any, *settings: Any, **more: Any) -> None:
        """Log a metric of a member that is here."""
        if not self.is_spread:
            self._log_as(member, name, value, *settings, **more)
            return
        if isinstance(value, Metric):
            raise TypeError(
                f"member {member.name!r} logs {name!r} as a {type(value).__name__}, which cannot "
                f"be told to other ranks under trainer.strategy spread; log its number"
            )
        if isinstance(value, Tensor):
            value = value.detach().cpu()
        logged = self._untold.setdefault((member.name, name), [])
        if self.trainer.training:  # a step's replaces the one before; those of a validation add up
            logged.clear()
        logged.append((value, settings, more))

    def _tell(self) -> None:
        """Log on every rank what members of all ranks have logged since the last time.

        A collective of all ranks.
        """
        if not self.is_spread:
            return
        said, self._untold = self._untold, {}
        told = {key: each for of_rank in gather(said) for key, each in of_rank.items()}
        for member in self.roster:
            for (of, name), logged in told.items():
                if of != member.name:
                    continue
                how: dict[str, Any] = {}
                if not self.trainer.training:
                    # equal on all ranks by now: Lightning warns where it is not told to reduce, and
                    # the largest of equals is exact, which the mean of three need not be
                    how = {"sync_dist": True, "reduce_fx": "max" if len(logged) == 1 else "mean"}
                for value, settings, more in logged:
                    self._log_as(member, name, value, *settings, **{**more, **how})

    def _log_as(self, member: Member, name: str, value: Any, *settings: Any, **more: Any) -> None:
        """Log a metric of a member under its name: ``train/loss`` as ``train/<member>/loss``."""
        first, _, rest = name.partition("/")
        if rest in ("loss", "bits_per_byte"):
            member.logged[name] = float(value)
        named = f"{first}/{member.name}/{rest}" if rest else f"{member.name}/{first}"
        if first == "train":
            member.train_metrics.add(named)
        more.pop("prog_bar", None)  # all members' would not fit beside one
        self.log(named, value, False, *settings[1:], **more)

    def _log_leading(self) -> None:
        """Log what is told of members that have stopped, and what the leading one has."""
        trainer = self.trainer
        for member in self.roster:
            if member.trains:
                if "train/loss" in member.logged and member.fate.skipped_steps:
                    self._log_as(member, "train/skipped_steps", float(member.fate.skipped_steps))
            elif trainer.global_step % trainer.log_every_n_steps == 0:
                for name in member.train_metrics:  # the trainer would repeat what it has of them
                    self.log(name, math.nan)
                member.train_metrics.clear()
        losses = [m.logged.pop("train/loss", math.nan) for m in self.roster]
        finite = [loss for loss in losses if math.isfinite(loss)]
        if finite:
            self.log("train/loss", min(finite), prog_bar=True)
            self.log("train/members", float(len(self.roster.training)))
