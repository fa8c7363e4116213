"""Members on one trunk: parts of their networks that are one and the same.

The losses of all that share a part are back-propagated at once, so that its gradient is the sum of
theirs. It is divided and clipped with the gradients of one of them, and stepped by the optimizer of
its owner. What is not finite in the gradient of one would reach the others by it: they leave out a
step together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from pile_lightning.config import from_plain
from pile_lightning.modules.environment.member import Member
from pile_lightning.modules.environment.parse import check_member, nearest
from pile_lightning.optim import NonFiniteGradients

__all__ = ["SharedPart", "Sharing", "as_shares", "check_shares"]


@dataclass(frozen=True, kw_only=True)
class SharedPart:
    """A part of the network that several members have in common.

    Example:
        >>> SharedPart(part="blocks", members=["summaries", "answers"]).owner
        'summaries'
    """

    part: str
    """Its name in the built network, such as ``embedding``, ``blocks`` or ``blocks.0``."""
    members: tuple[str, ...]
    """Those that have it: the first owns it, whose seed fills it and whose optimizer steps it."""

    def __post_init__(self) -> None:
        if len(set(self.members)) < 2 or len(set(self.members)) < len(self.members):
            raise ValueError(
                f"share: {self.part!r} has members={list(self.members)}; name two at least, each "
                f"of them once"
            )

    @property
    def owner(self) -> str:
        """The first of its members."""
        return self.members[0]


def as_shares(shares: Sequence[Any] | None) -> list[SharedPart]:
    """Return shared parts, made of plain data where they are not made yet.

    Raises:
        ValueError: For one that cannot be.
    """
    made = []
    for each in from_plain(list(shares or [])):
        if isinstance(each, Mapping):
            if set(each) != {"part", "members"}:
                raise ValueError(
                    f"share: {dict(each)!r} has to say part and members, and no more; such as "
                    f"{{part: blocks, members: [one, two]}}"
                )
            each = SharedPart(**each)
        made.append(SharedPart(part=each.part, members=tuple(each.members)))
    return made


def check_shares(shares: Sequence[SharedPart], frozen: Mapping[str, bool]) -> None:
    """Refuse parts that members cannot share.

    Args:
        shares: The parts.
        frozen: The members by name, and whether each is frozen.

    Raises:
        ValueError: For a member that there is not, one that is frozen and not the owner, and parts
            of one member that overlap.
    """
    taken: dict[str, list[str]] = {name: [] for name in frozen}
    for share in shares:
        for name in share.members:
            check_member(name, list(frozen), of=f"share: {share.part!r}")
            if frozen[name] and name != share.owner:
                raise ValueError(
                    f"share: {name!r} is frozen, and {share.part!r} would be that of "
                    f"{share.owner!r}; name {name!r} first: then the others have its part, frozen"
                )
            for other in taken[name]:
                if f"{other}.".startswith(f"{share.part}.") or share.part.startswith(f"{other}."):
                    raise ValueError(
                        f"share: {share.part!r} and {other!r} of {name!r} overlap; share the "
                        f"larger one by all that are to have it"
                    )
            taken[name].append(share.part)


class Sharing:
    """The shared parts of an environment at work.

    Args:
        shares: The parts.
        members: All members by name.

    Raises:
        ValueError: As ``check_shares``.
    """

    def __init__(self, shares: Sequence[SharedPart], members: Mapping[str, Member]) -> None:
        check_shares(shares, {name: member.spec.frozen for name, member in members.items()})
        self.shares = list(shares)
        self._members = members
        self._parameters: dict[SharedPart, list[nn.Parameter]] = {}

    def tie(self) -> None:
        """Give built networks the parts of their owners.

        Raises:
            ValueError: For a part that a network has not, or that is of another shape.
        """
        for share in self.shares:
            owner = self._members[share.owner]
            theirs = _parameters(owner, share.part)
            owner.shared.update(theirs.values())
            self._parameters[share] = list(theirs.values())
            for name in share.members[1:]:
                member = self._members[name]
                own = _parameters(member, share.part)
                _check_alike(share, name, own, theirs)
                _replace(member.module.built_network, {own[key]: theirs[key] for key in theirs})
                member.shared.update(theirs.values())
                member.borrowed.update(theirs.values())

    def groups(self) -> Iterator[tuple[list[Member], list[nn.Parameter]]]:
        """Yield members that share with one another, directly or by others, and what they share."""
        left = [share for share in self.shares if not self._members[share.owner].spec.frozen]
        while left:
            group = [left.pop(0)]
            names = set(group[0].members)
            while more := [share for share in left if names.intersection(share.members)]:
                group += more
                left = [share for share in left if share not in more]
                names.update(name for share in more for name in share.members)
            members = [member for name, member in self._members.items() if name in names]
            yield members, [p for share in group for p in self._parameters[share]]

    def carry(self) -> None:
        """Count each shared gradient among those of one member, which divides and clips it.

        That is the owner, or the next that trains where it was stopped.
        """
        elsewhere: dict[str, set[nn.Parameter]] = {name: set() for name in self._members}
        for share in self.shares:
            training = [name for name in share.members if self._members[name].trains]
            for name in share.members:
                if training[:1] != [name]:
                    elsewhere[name].update(self._parameters[share])
            if not training:
                for parameter in self._parameters[share]:
                    parameter.grad = None
        for name, parameters in elsewhere.items():
            self._members[name].module.carried_elsewhere = frozenset(parameters)

    def bad_groups(self) -> list[Tensor]:
        """Return for each of ``groups`` whether a shared gradient is not finite, on this rank."""
        return [
            NonFiniteGradients(parameters).found().bool()
            if members[0].here
            else torch.tensor(False)
            for members, parameters in self.groups()
        ]

    def judge(
        self, bad: Mapping[str, int], bad_groups: Sequence[int]
    ) -> tuple[dict[str, int], list[str]]:
        """Leave a step out together: drop the gradients of parts that a bad member shares.

        Args:
            bad: For each that trains, on how many ranks its loss or own gradients are bad.
            bad_groups: For each of ``groups``, on how many ranks a shared gradient is not finite;
                none where it was not looked for.

        Returns:
            The same, where a shared gradient alone is not finite for all that share it; and those
            that leave the step out for others.
        """
        found, dragged = dict(bad), []
        for (members, parameters), is_bad in zip_longest(self.groups(), bad_groups):
            training = [member.name for member in members if member.trains]
            guilty = [name for name in training if bad[name]]
            if not guilty and not is_bad:
                continue
            NonFiniteGradients(parameters).drop()
            if not guilty:
                found |= dict.fromkeys(training, 1)
                continue
            innocent = [name for name in training if name not in guilty]
            if innocent:
                rank_zero_warn(
                    f"what fails of {_names(guilty)} would reach {_names(innocent)} by what they "
                    f"share: they leave this step out too"
                )
            dragged += innocent
        return found, dragged

    def goes_on(self, stopped: Member) -> str:
        """Say which parts of a member go on training with others, when it stops."""
        parts = []
        for share in self.shares:
            others = [n for n in share.members if n != stopped.name and self._members[n].trains]
            if stopped.name in share.members and others:
                parts.append(f"its {share.part}, which goes on training with {_names(others)}")
        return f", but for {' and '.join(parts)}" if parts else ""


def _names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _parameters(member: Member, part: str) -> dict[str, nn.Parameter]:
    """Return the parameters of a part by name."""
    network = member.module.built_network
    try:
        found = network.get_submodule(part) if part else None
    except AttributeError:
        found = None
    if found is None:
        parts = [name for name, _ in network.named_children()]
        raise ValueError(
            f"share: the network of {member.name!r} has no part {part!r}; {nearest(part, parts)}"
        )
    parameters = dict(found.named_parameters())
    if not parameters:
        raise ValueError(
            f"share: {part!r} of {member.name!r} has no parameters, and there is nothing to share; "
            f"leave it out"
        )
    return parameters


def _check_alike(
    share: SharedPart,
    name: str,
    own: Mapping[str, nn.Parameter],
    theirs: Mapping[str, nn.Parameter],
) -> None:
    shapes, others = ({k: tuple(p.shape) for k, p in each.items()} for each in (own, theirs))
    for key in [*others, *shapes]:
        if shapes.get(key) != others.get(key):
            raise ValueError(
                f"share: {share.part}.{key} is {shapes.get(key, 'not there')} in {name!r} and "
                f"{others.get(key, 'not there')} in {share.owner!r}; give both the same settings "
                f"for that part"
            )


def _replace(network: nn.Module, new: Mapping[nn.Parameter, nn.Parameter]) -> None:
    """Put other parameters in the place of those of a network, also where they are tied."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter in new:
                setattr(module, name, new[parameter])
