"""What a checkpoint says of itself without its tensors: its step, and what the run knew then."""

from typing import Any

__all__ = ["summary_of"]


def summary_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the step of a checkpoint, and its ``summary`` where it has one.

    Example:
        >>> summary_of({"global_step": 7, "summary": {"tokens": 700}, "state_dict": {}})
        {'step': 7, 'tokens': 700}
    """
    return {"step": checkpoint.get("global_step"), **checkpoint.get("summary", {})}
