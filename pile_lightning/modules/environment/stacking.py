"""Members of one shape computed as one: the other engine, and the choice between the two."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from pile_lightning.batch import TokenBatch
from pile_lightning.device import keep_freed_memory
from pile_lightning.modules.base import LanguageModule
from pile_lightning.modules.environment.engines import Engine, Sequential
from pile_lightning.modules.environment.member import Member
from pile_lightning.modules.stacked import Stack, choose_stack, why_not_stack
from pile_lightning.parallel import num_step_ranks

__all__ = ["EngineName", "Stacked", "build_engine"]

EngineName: TypeAlias = Literal["sequential", "stacked", "auto"]


class Stacked(Engine):
    """Members of one shape as one, and the others one after another.

    Losses are a member's own but for rounding, some 1e-7 of themselves. Where a member stops, the
    others are stacked anew.

    Args:
        trainer: The trainer, in training.
        timed: Stack only those that are faster so, which is tried on the first batch.
    """

    def __init__(self, trainer: Trainer, *, timed: bool) -> None:
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        self.trainer = trainer
        self.timed = timed
        self.decided: dict[str, bool] = {}
        """Whether members, by their names, are computed as one: plain data of a checkpoint."""
        self._prepared: list[str] = []
        self._stacks: dict[str, tuple[Sequence[Member], Stack[LanguageModule]]] = {}
        self._one_by_one = Sequential()

    def prepare(self, members: Sequence[Member], batch: TokenBatch) -> None:
        """Stack those of one shape, where other members train than the last time."""
        names = [member.name for member in members]
        if names == self._prepared:
            return
        for _, stack in self._stacks.values():
            stack.release()
        self._stacks, self._prepared = {}, names
        if not members:
            return
        for group in _alike(members):
            key = " ".join(member.name for member in group)
            if self.timed and key not in self.decided:
                self.decided[key] = self._is_faster(group, batch)
            if self.decided.get(key, True):
                modules = [member.module for member in group]
                self._stacks[key] = group, Stack(modules, compile=modules[0].compiles)
        stacked = sum(len(group) for group, _ in self._stacks.values())
        rank_zero_info(f"Engine: {stacked} of {len(members)} members are computed as one.")

    def losses(self, members: Sequence[Member], batch: TokenBatch) -> dict[str, Tensor | Exception]:
        """Compute all members of a stack at once; where that fails, each by itself."""
        wanted = {member.name for member in members}
        found: dict[str, Tensor | Exception] = {}
        for key, (group, stack) in list(self._stacks.items()):
            names = [member.name for member in group]
            if not wanted.issuperset(names):  # one has failed in this step, on this rank
                continue
            try:
                losses = stack(lambda module: module.loss_sum(batch))
            except Exception as error:  # a user's own network may raise anything
                self._give_up(key, error)
                continue
            found |= dict(zip(names, losses.unbind(), strict=True))
        left = [member for member in members if member.name not in found]
        found |= self._one_by_one.losses(left, batch)
        return {member.name: found[member.name] for member in members}

    def state_dict(self) -> dict[str, Any]:
        """Return what was decided, so that a run that goes on computes as it did."""
        return {"decided": dict(self.decided)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what was decided."""
        self.decided = dict(state.get("decided", {}))

    def _is_faster(self, group: Sequence[Member], batch: TokenBatch) -> bool:
        modules = [member.module for member in group]
        held = [(p, p.grad) for module in modules for p in module.parameters()]
        for parameter, _ in held:
            parameter.grad = None
        choice = choose_stack(modules, batch, compile=modules[0].compiles)
        for parameter, gradient in held:  # of earlier micro-batches of this step
            parameter.grad = gradient
        if choice.stack is not None:
            choice.stack.release()
        rank_zero_info(f"Engine: {choice.reason}.")
        faster = choice.stack is not None
        if num_step_ranks(self.trainer) == 1:
            return faster
        # ranks that measured otherwise do the same
        return bool(self.trainer.strategy.reduce_boolean_decision(faster, all=True))

    def _give_up(self, key: str, error: Exception) -> None:
        """Compute members one after another from now on: whose fault it is, shows there."""
        _, stack = self._stacks.pop(key)
        stack.release()
        self.decided[key] = False
        rank_zero_warn(
            f"members {key} are computed one after another from here, as together they fail: "
            f"{error!r}"
        )


def build_engine(name: EngineName, trainer: Trainer) -> Engine:
    """Make an engine.

    Args:
        name: ``sequential``, ``stacked``, or ``auto`` for what is faster.
        trainer: The trainer, in training.
    """
    return Sequential() if name == "sequential" else Stacked(trainer, timed=name == "auto")


def _alike(members: Sequence[Member]) -> list[list[Member]]:
    """Return the groups of two and more that can be computed as one."""
    groups: list[list[Member]] = []
    for member in members:
        # it draws random numbers of its own, or has parameters that others have too
        if _draws(member.module) or member.shared:
            continue
        for group in groups:
            if why_not_stack([group[0].module, member.module]) is None:
                group.append(member)
                break
        else:
            groups.append([member])
    return [group for group in groups if len(group) > 1]


def _draws(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Dropout) and part.p > 0 for part in module.modules())
