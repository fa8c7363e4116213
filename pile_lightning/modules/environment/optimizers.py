"""The one optimizer and the one schedule of an environment, made of its members' own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from pile_lightning.modules.environment.member import Member
from pile_lightning.optim import JointOptimizer, joint_schedule

__all__ = ["joint_optimizer"]


def joint_optimizer(members: Sequence[Member], *, together: bool = False) -> dict[str, Any]:
    """Return what ``configure_optimizers`` of an environment returns.

    Args:
        members: Whose optimizers and schedules are joined.
        together: As for ``JointOptimizer``.

    Raises:
        ValueError: For a member whose optimizer or schedule cannot be joined to the others'.
    """
    parts: dict[str, Optimizer] = {}
    factors: dict[str, Sequence[Callable[[int], float]]] = {}
    for member in members:
        optimizer, factors[member.name] = _configured(member)
        member.left_out = _leave_out(optimizer, member.borrowed)
        parts[member.name] = member.module.own_optimizer = optimizer
    joint = JointOptimizer(parts, together=together)
    # "step": the default would advance it once an epoch and leave a warm-up at its start
    return {
        "optimizer": joint,
        "lr_scheduler": {"scheduler": joint_schedule(joint, factors), "interval": "step"},
    }


def _leave_out(optimizer: Optimizer, borrowed: set[nn.Parameter]) -> list[list[int]]:
    """Take out of an optimizer what another one steps; return where in its groups that was."""
    left_out = []
    for group in optimizer.param_groups:
        left_out.append([i for i, p in enumerate(group["params"]) if p in borrowed])
        group["params"] = [p for p in group["params"] if p not in borrowed]
    return left_out


def _configured(member: Member) -> tuple[Optimizer, Sequence[Callable[[int], float]]]:
    made: Any = member.module.configure_optimizers()
    if isinstance(made, Optimizer):
        made = {"optimizer": made}
    schedule = made.get("lr_scheduler") if isinstance(made, Mapping) else None
    settings = schedule if isinstance(schedule, Mapping) else {"scheduler": schedule}
    kind = type(member.module).__name__
    if not isinstance(made, Mapping) or not isinstance(made.get("optimizer"), Optimizer):
        raise ValueError(
            f"member {member.name!r}: configure_optimizers of {kind} makes no single optimizer, "
            f"which is what an environment joins to the others'; return one"
        )
    optimizer = made["optimizer"]
    if schedule is None:
        return optimizer, [_constant] * len(optimizer.param_groups)
    own = settings.get("scheduler")
    if not isinstance(own, LambdaLR) or settings.get("interval") != "step":
        raise ValueError(
            f"member {member.name!r}: an environment takes schedules that are a LambdaLR with "
            f"interval 'step', and {kind} has {type(own).__name__} with interval "
            f"{settings.get('interval', 'epoch')!r}; say the rate as a function of the step"
        )
    return optimizer, own.lr_lambdas


def _constant(step: int) -> float:
    return 1.0
