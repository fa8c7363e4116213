"""With which codes a process leaves so that a script can tell what to do next, and when.

0 is a finished run, 1 and 2 are errors that another try would meet again.
"""

import atexit
import os
import time
from collections.abc import Callable

from lightning import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment

__all__ = ["HUNG", "PREEMPTED", "REWOUND", "check_exit_code", "leave_after_the_first"]

PREEMPTED = 85
"""Told to leave, and saved: queue it again."""
REWOUND = 86
"""Went back to an earlier checkpoint: start it again."""
HUNG = 87
"""Made no progress: start it again."""


def check_exit_code(code: int) -> int:
    """Return ``code`` if it is free to mean something.

    Raises:
        ValueError: For one that is not.

    Example:
        >>> check_exit_code(85)
        85
    """
    if not 3 <= code <= 125:
        raise ValueError(
            f"exit_code={code}: 0 to 2 and what is above 125 mean something else to a shell; "
            f"choose 3 to 125"
        )
    return code


def leave_after_the_first(trainer: Trainer) -> None:
    """Let a process that Lightning has started end after the one that started it.

    That one watches the others, and kills all, itself too, where one ends with a code.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if isinstance(environment, LightningEnvironment) and trainer.local_rank > 0:
        atexit.register(_outlive, os.getppid())


def _outlive(process: int, *, seconds: float = 15, parent: Callable[[], int] = os.getppid) -> None:
    deadline = time.monotonic() + seconds
    while parent() == process and time.monotonic() < deadline:
        time.sleep(0.05)
