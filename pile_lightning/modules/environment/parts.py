"""A checkpoint of all members, made of those of ranks that hold some of them each."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

__all__ = ["join_parts", "part_of_members"]


def part_of_members(checkpoint: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return what a checkpoint holds of some members: weights, optimizer, fates, random numbers.

    Tensors are those of the checkpoint, not copies.

    Args:
        checkpoint: Of an environment.
        names: Of the members.
    """
    own = checkpoint["environment"]
    prefixes = tuple(f"members.{name.replace('.', '_')}." for name in names)
    part: dict[str, Any] = {
        "state_dict": {
            key: value
            for key, value in checkpoint["state_dict"].items()
            if key.startswith(prefixes)
        },
        "environment": {
            **own,
            "members": {name: own["members"][name] for name in own["members"] if name in names},
        },
    }
    if "optimizer_states" in checkpoint:
        members = [name for name, count in own["num_groups"].items() for _ in range(count)]
        part["optimizer_states"] = [
            {
                **joint,
                "state": {
                    number: joint["state"][number]
                    for name, group in zip(members, joint["param_groups"], strict=True)
                    for number in group["params"]
                    if name in names and number in joint["state"]
                },
            }
            for joint in checkpoint["optimizer_states"]
        ]
    return part


def join_parts(checkpoint: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a checkpoint with the members of all parts in the place of its own.

    Args:
        checkpoint: Of one of the ranks.
        parts: As ``part_of_members`` returns them, with each member once.
    """
    weights = {key: value for part in parts for key, value in part["state_dict"].items()}
    members = {name: m for part in parts for name, m in part["environment"]["members"].items()}
    own = checkpoint["environment"]
    joined = {
        **checkpoint,
        "state_dict": {k: weights.get(k, v) for k, v in checkpoint["state_dict"].items()},
        "environment": {
            **own,
            "members": {name: members[name] for name in own["members"]},
            "engine": _joined_engine([part["environment"]["engine"] for part in parts]),
        },
    }
    if "optimizer_states" in checkpoint:
        joined["optimizer_states"] = [
            {**joint, "state": dict(sorted(_states(parts, place)))}
            for place, joint in enumerate(checkpoint["optimizer_states"])
        ]
    return joined


def _states(parts: Sequence[Mapping[str, Any]], place: int) -> list[tuple[int, Any]]:
    return [item for part in parts for item in part["optimizer_states"][place]["state"].items()]


def _joined_engine(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what was decided on all ranks, each of which decides of its own members."""
    decided = {key: each for state in states for key, each in state.get("decided", {}).items()}
    return {"decided": decided} if any("decided" in state for state in states) else {}
