"""Which rank trains which member: a pure function of sizes, couplings and the number of ranks."""

from collections.abc import Mapping, Sequence

from pile_lightning.modules.environment.coupling import Coupling
from pile_lightning.modules.environment.sharing import SharedPart

__all__ = ["check_num_ranks", "coupled_groups", "place"]


def coupled_groups(
    names: Sequence[str], couplings: Sequence[Coupling], shares: Sequence[SharedPart] = ()
) -> list[list[str]]:
    """Return members in groups that are to be on one rank: those that anything connects.

    What several couplings score together is one score, and of one rank.

    Args:
        names: Of all members.
        couplings: Of some of them.
        shares: Parts that some of them have in common.

    Example:
        >>> from pile_lightning import Distillation
        >>> coupled_groups(["a", "b", "c"], [Distillation(teacher="c", students=["a"])])
        [['a', 'c'], ['b']]
    """
    ties = [set(coupling.names) for coupling in couplings]
    ties += [set(share.members) for share in shares]
    scoring = [each for each in couplings if type(each).token_nll is not Coupling.token_nll]
    ties.append({name for each in scoring for name in each.names})
    group_of = {name: {name} for name in names}
    for tied in ties:
        merged = set().union(*(group_of[name] for name in tied))
        group_of.update(dict.fromkeys(merged, merged))
    return [
        [each for each in names if each in group_of[name]]
        for name in names
        if name == next(each for each in names if each in group_of[name])
    ]


def check_num_ranks(groups: Sequence[Sequence[str]], num_ranks: int) -> None:
    """Refuse ranks that would have no member.

    Raises:
        ValueError: For more ranks than groups.
    """
    if num_ranks <= len(groups):
        return
    num_members = sum(len(group) for group in groups)
    tied = ""
    if num_members > len(groups):
        plural = "s" if len(groups) > 1 else ""
        tied = f" in {len(groups)} group{plural} that couplings or shared parts keep on one rank"
    raise ValueError(
        f"{num_ranks} ranks for {num_members} members{tied}: under trainer.strategy spread each "
        f"rank trains members of its own; use trainer.devices up to {len(groups)}, or "
        f"trainer.strategy ddp, which shares the rows of each step"
    )


def place(
    groups: Sequence[Sequence[str]], sizes: Mapping[str, int], *, num_ranks: int
) -> dict[str, int]:
    """Return the rank of each member: the largest group first, to the rank that has least.

    Args:
        groups: Of members that are to be on one rank.
        sizes: Parameters by name.
        num_ranks: How many there are.

    Raises:
        ValueError: For more ranks than groups.

    Example:
        >>> place([["a"], ["b"], ["c"]], {"a": 3, "b": 9, "c": 5}, num_ranks=2)
        {'b': 0, 'c': 1, 'a': 1}
    """
    check_num_ranks(groups, num_ranks)
    loads = [0] * num_ranks
    ranks: dict[str, int] = {}
    for group in sorted(groups, key=lambda group: -sum(sizes[name] for name in group)):
        rank = loads.index(min(loads))
        ranks |= dict.fromkeys(group, rank)
        # a group of nothing takes a place as well
        loads[rank] += max(1, sum(sizes[name] for name in group))
    return ranks
