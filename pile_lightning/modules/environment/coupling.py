"""Members that learn from one another: loss terms made of what several of them say of a batch."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pile_lightning.batch import IGNORE_INDEX, TokenBatch

__all__ = ["Coupling", "Distillation", "Ensemble", "MutualLearning"]


@dataclass(frozen=True, kw_only=True)
class Coupling(ABC):
    """What ties members together; derive from it to bring your own."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The members that it is about; each has to be there."""

    @property
    def wants_logits(self) -> bool:
        """Whether it adds to losses in training, and so needs the logits of its members."""
        return True

    @property
    def begin(self) -> float:
        """Share of the run's steps after which it adds to losses."""
        return 0.0

    def losses(self, logits: Mapping[str, Tensor], batch: TokenBatch) -> dict[str, Tensor]:
        """Return by name what is added to members' losses, summed over the predicted tokens.

        Args:
            logits: Of those of its members that train, and of the frozen ones (batch, seq, vocab),
                by name.
            batch: What they have read.
        """
        return {}

    def token_nll(self, nats: Mapping[str, Tensor]) -> Tensor | None:
        """Return the nats of each label of a model that the members make together, if they do.

        It is scored on held-out text as ``val/ensemble/bits_per_byte``.

        Args:
            nats: Of each label (batch, seq), of those of its members that train, by name.
        """
        return None


def divergence(
    student: Tensor, teacher: Tensor, batch: TokenBatch, *, temperature: float = 1.0
) -> Tensor:
    """Return KL(teacher, student) summed over the predicted tokens, times the squared temperature.

    The factor keeps the gradient's size at any temperature (Hinton et al., arXiv 1503.02531). The
    teacher gets no gradient, and where it is not finite it teaches nothing.

    Args:
        student: Logits (batch, seq, vocab).
        teacher: Logits (batch, seq, vocab).
        batch: Whose labels say which tokens are predicted.
        temperature: Divides both.
    """
    own, other = student.float(), teacher.detach().float()
    other = torch.where(other.isfinite().all(dim=-1, keepdim=True), other, own.detach())
    log_student = (own / temperature).log_softmax(dim=-1)
    log_teacher = (other / temperature).log_softmax(dim=-1)
    per_token = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1)
    known = batch["labels"] != IGNORE_INDEX
    return per_token.masked_fill(~known, 0).sum() * temperature**2


@dataclass(frozen=True, kw_only=True)
class _Imitation(Coupling):
    """Members that imitate what others think of each token."""

    weight: float = 1.0
    """Of the divergence, which is added to the loss of who imitates."""
    temperature: float = 1.0
    """Divides the logits of both: above 1, what is thought unlikely counts for more."""
    begin: float = 0.0
    """Share of the run's steps after which it begins. Who trains beside has less to say than the
    text at first: 0.5 does more than 0 there; a frozen teacher is worth hearing from the start."""

    def __post_init__(self) -> None:
        if not self.weight > 0 or not self.temperature > 0:
            raise ValueError(
                f"weight={self.weight} and temperature={self.temperature} of a coupling have to be "
                f"above 0"
            )
        if not 0 <= self.begin < 1:
            raise ValueError(
                f"begin={self.begin} of a coupling is a share of the run's steps; choose one from "
                f"0 to below 1, such as 0.5"
            )


@dataclass(frozen=True, kw_only=True)
class Distillation(_Imitation):
    """Students that imitate what a teacher thinks of each token.

    A student's loss is its own and ``weight`` times the divergence from the teacher, which trains
    beside them as it would alone, or is frozen.

    Example:
        >>> Distillation(teacher="big", students=["small"]).names
        ('big', 'small')
    """

    teacher: str
    """The member that is imitated."""
    students: tuple[str, ...]
    """The members that imitate it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher in self.students or not self.students:
            raise ValueError(
                f"students={list(self.students)} of teacher={self.teacher!r}: name one at least, "
                f"and not the teacher itself"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The teacher and its students."""
        return (self.teacher, *self.students)

    def losses(self, logits: Mapping[str, Tensor], batch: TokenBatch) -> dict[str, Tensor]:
        """Return what imitating adds to the loss of each student."""
        if self.teacher not in logits:
            return {}
        return {
            name: self.weight
            * divergence(logits[name], logits[self.teacher], batch, temperature=self.temperature)
            for name in self.students
            if name in logits
        }


@dataclass(frozen=True, kw_only=True)
class MutualLearning(_Imitation):
    """Members that imitate one another (Zhang et al., arXiv 1706.00384).

    Example:
        >>> MutualLearning(members=["one", "two"], weight=0.3).names
        ('one', 'two')
    """

    members: tuple[str, ...]
    """Those that do, each the mean of the others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.members)) < 2:
            raise ValueError(f"members={list(self.members)}: at least two learn from one another")

    @property
    def names(self) -> tuple[str, ...]:
        """The members."""
        return tuple(self.members)

    def losses(self, logits: Mapping[str, Tensor], batch: TokenBatch) -> dict[str, Tensor]:
        """Return the mean divergence of each from the others."""
        found: dict[str, Tensor] = {}
        for name, own in logits.items():
            others = [logits[other] for other in logits if other != name]
            if others:
                terms = [divergence(own, o, batch, temperature=self.temperature) for o in others]
                found[name] = torch.stack(terms).sum() * (self.weight / len(terms))
        return found


@dataclass(frozen=True, kw_only=True)
class Ensemble(Coupling):
    """The mean of members' probabilities, scored on held-out text; training does not see it.

    Example:
        >>> nats = {"one": torch.tensor([[math.log(2)]]), "two": torch.tensor([[math.log(4)]])}
        >>> Ensemble(members=["one", "two"]).token_nll(nats).exp()  # 1 / mean(1/2, 1/4)
        tensor([[2.6667]])
    """

    members: tuple[str, ...]
    """Those that it is made of."""

    @property
    def names(self) -> tuple[str, ...]:
        """The members."""
        return tuple(self.members)

    @property
    def wants_logits(self) -> bool:
        """No: the probabilities of the labels will do."""
        return False

    def token_nll(self, nats: Mapping[str, Tensor]) -> Tensor | None:
        """Return the nats of each label by the mean of the probabilities."""
        if not nats:
            return None
        stacked = torch.stack([each.float() for each in nats.values()])
        return math.log(len(nats)) - (-stacked).logsumexp(dim=0)
