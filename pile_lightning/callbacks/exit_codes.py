"""With which codes a process ends so that a script can tell what to do next.

0 is a finished run, 1 and 2 are errors that another try would meet again.
"""

__all__ = ["HUNG", "PREEMPTED", "REWOUND", "check_exit_code"]

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
