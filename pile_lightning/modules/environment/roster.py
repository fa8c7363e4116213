"""The members of an environment: which of them train, which were stopped and why, which is best."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from pile_lightning.modules.environment.failing import gathered, words
from pile_lightning.modules.environment.halving import losers
from pile_lightning.modules.environment.member import Member, in_order
from pile_lightning.modules.environment.sharing import SharedPart, Sharing
from pile_lightning.parallel import num_step_ranks

__all__ = ["Roster"]


class Roster:
    """Members by name, in their order.

    Args:
        members: The members.
        shares: Parts of networks that several of them have in common.

    Raises:
        ValueError: For parts that they cannot share.
    """

    def __init__(self, members: list[Member], shares: Sequence[SharedPart] = ()) -> None:
        self._members = {member.name: member for member in members}
        self.sharing = Sharing(shares, self._members)
        self.most_skipped = 10
        """Skipped steps in a row that stop a member."""
        self._errors: dict[str, Exception] = {}

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    @property
    def training(self) -> list[Member]:
        """Those that were not stopped."""
        return [member for member in self if member.trains]

    @property
    def training_here(self) -> list[Member]:
        """Those of them that this rank trains: all, unless they are spread over ranks."""
        return [member for member in self.training if member.here]

    @property
    def frozen(self) -> list[Member]:
        """Those that keep the weights that they came with."""
        return [member for member in self if member.spec.frozen]

    @property
    def computing(self) -> list[Member]:
        """Those that train and have not failed in this step, on this rank."""
        return [member for member in self.training_here if member.name not in self._errors]

    def best(self) -> Member:
        """Return who has the best held-out score; the first that trains where none has.

        That it is frozen is no merit: what a run is for is what it has trained.
        """
        trained = [member for member in self if not member.spec.frozen]
        scored = [member for member in trained if math.isfinite(member.fate.loss)]
        if scored:
            return min(
                scored, key=lambda member: in_order(member.fate.bits_per_byte, member.fate.loss)
            )
        return next(iter(self.training or trained))

    # -- stopping ---------------------------------------------------------------------------------

    def fail(self, name: str, error: Exception) -> None:
        """Remember that a member's forward failed in this step, on this rank."""
        self._errors[name] = error

    def judge(self, trainer: Trainer) -> None:
        """Leave out the step of members that are not finite, and stop those that fail for good.

        To be called on all ranks, which come to the same: their gradients are there, and their
        optimizers have not stepped.

        Raises:
            FloatingPointError: Where no member is left to train.
            RuntimeError: Where the last one failed.
        """
        judged, errors = self.training, self._errors
        self._errors = {}
        failed = [member.name in errors for member in judged]
        # a gradient scaler leaves out a step by itself, and its gradients are not scaled yet
        looks = trainer.precision != "16-mixed"
        bad = [
            member.is_bad() if looks and member.here and not gone else torch.tensor(gone)
            for member, gone in zip(judged, failed, strict=True)
        ]
        device = trainer.strategy.root_device
        shared = self.sharing.bad_groups() if looks else []
        found = torch.stack([each.to(device) for each in [*bad, *shared]])
        flags = torch.cat([found, torch.tensor(failed, device=device)]).to(torch.int32)
        if trainer.world_size > 1:
            flags = trainer.strategy.reduce(flags, reduce_op="sum")
        ranks = flags.tolist()
        is_bad, is_failed = ranks[: len(judged)], ranks[-len(judged) :]
        step = trainer.global_step
        reasons = gathered({name: words(e) for name, e in errors.items()}, any(is_failed))
        bad_ranks_of, dragged = self.sharing.judge(
            {member.name: count for member, count in zip(judged, is_bad, strict=True)},
            ranks[len(judged) : -len(judged)],
        )
        for member, failed_ranks in zip(judged, is_failed, strict=True):
            member.losses.clear()
            if member.name in dragged:
                member.fate.skipped_steps += 1
                member.gradients.drop()
                continue
            if not bad_ranks_of[member.name]:
                member.fate.in_a_row = 0
                continue
            member.gradients.drop()
            if failed_ranks:
                self.stop(member, step, reasons[member.name])
            else:
                self._skip(member, step)
        if not self.training:
            self._end(judged[-1], errors, failed=is_failed[-1] > 0)

    def _skip(self, member: Member, step: int) -> None:
        fate = member.fate
        fate.skipped_steps += 1
        fate.in_a_row += 1
        rank_zero_warn(
            f"step {step + 1} of member {member.name!r} has a loss or gradient that is not finite: "
            f"skipped ({fate.in_a_row} in a row, {fate.skipped_steps} in all)"
        )
        if fate.in_a_row >= self.most_skipped:
            last_good = step + 1 - fate.in_a_row
            self.stop(member, last_good, f"loss or gradients not finite from step {last_good + 1}")

    def stop(self, member: Member, step: int, reason: str) -> None:
        """Let a member train no more; its weights are those of ``step``."""
        member.fate.stopped_step, member.fate.reason = step, reason
        but = self.sharing.goes_on(member)
        message = f"member {member.name!r} stops, with the weights of step {step}{but}: {reason}"
        if reason.startswith("halving"):
            rank_zero_info(message)
        else:
            rank_zero_warn(f"{message}. The others go on")

    def stop_failed(
        self, reasons: dict[str, str], errors: dict[str, Exception], *, step: int
    ) -> None:
        """Stop members that failed on held-out text, after ``step``.

        Args:
            reasons: What went wrong by name, the same on all ranks.
            errors: The same of this rank, as it was raised.
            step: The step that was to be scored.

        Raises:
            RuntimeError: Where no member is left to train.
        """
        failed = [member for member in self.training if member.name in reasons]
        for member in failed:
            self.stop(member, step, f"in validation, {reasons[member.name]}")
        if not self.training:
            self._end(failed[-1], errors, failed=True)

    @staticmethod
    def _end(last: Member, errors: dict[str, Exception], *, failed: bool) -> None:
        message = (
            f"member {last.name!r} was the last that trained, and was stopped with the weights of "
            f"step {last.fate.stopped_step}: {last.fate.reason}"
        )
        if failed:  # on this rank or on another
            raise RuntimeError(message) from errors.get(last.name)
        raise FloatingPointError(f"{message}; lower the learning rate, or clip gradients")

    def halve(self, step: int, *, keep: float, losses: dict[str, float]) -> None:
        """Stop the worst, by their latest held-out score, or by ``losses`` before there is any.

        Args:
            step: The step after which it is.
            keep: Share that goes on.
            losses: Smoothed training losses by name.
        """
        training = self.training
        scores = {member.name: member.fate.bits_per_byte for member in training}
        by, unit = "held-out", "bits per byte"
        if any(math.isnan(score) for score in scores.values()):
            scores, unit = {m.name: m.fate.loss for m in training}, "nats a token"
        if any(member.fate.scored_step is None for member in training):
            scores, by, unit = losses, "training", "nats a token"
        ranks = sorted(scores.values())
        for name in losers(scores, keep=keep):
            place = f"{ranks.index(scores[name]) + 1} of {len(scores)}"
            reason = f"halving: place {place} by {by} loss ({scores[name]:.4f} {unit})"
            self.stop(self[name], step, reason)

    # -- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return how each fares."""
        return {member.name: member.state_dict() for member in self}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for member in self:
            if member.name in state:
                member.load_state_dict(state[member.name])

    def ranking(self) -> list[dict[str, Any]]:
        """Return a row a member, the best first: name, scores, size, what was swept, state."""
        rows = [
            {
                "name": member.name,
                "bits_per_byte": member.fate.bits_per_byte,
                "loss": member.fate.loss,
                "scored_step": member.fate.scored_step,
                "parameters": member.num_parameters(),
                "seed": member.seed,
                "swept": dict(member.spec.swept),
                "frozen": member.spec.frozen,
                "stopped_step": member.fate.stopped_step,
                "reason": member.fate.reason,
                "skipped_steps": member.fate.skipped_steps,
            }
            for member in self
        ]

        return sorted(rows, key=lambda row: in_order(row["bits_per_byte"], row["loss"]))


def mean_losses(members: list[Member], trainer: Trainer) -> dict[str, float]:
    """Return the smoothed training losses of members over all ranks that train them."""
    spread = num_step_ranks(trainer) < trainer.world_size
    trends = [_trend(member) for member in members]
    stacked = torch.stack(trends).to(trainer.strategy.root_device)
    if trainer.world_size > 1:
        # zeros where others train it: the sum is exact
        stacked = trainer.strategy.reduce(stacked, reduce_op="sum" if spread else "mean")
    return {m.name: value for m, value in zip(members, stacked.tolist(), strict=True)}


def _trend(member: Member) -> Tensor:
    if not member.here:
        return torch.tensor(0.0)
    return torch.tensor(math.nan) if member.trend is None else member.trend.detach().cpu()
