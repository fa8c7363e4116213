"""What a checkpoint says of itself without its tensors: its step, when, and what was known then."""

import time
from typing import Any

__all__ = ["summary_of"]


def summary_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the step of a checkpoint, the time, and its ``summary`` where it has one.

    Example:
        >>> summary = summary_of({"global_step": 7, "summary": {"tokens": 700}, "state_dict": {}})
        >>> sorted(summary)
        ['saved_at', 'step', 'tokens']
    """
    known = checkpoint.get("summary", {})
    return {"step": checkpoint.get("global_step"), "saved_at": time.time(), **known}
