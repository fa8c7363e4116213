"""Errors as a user wants them: one message, not a page of parser output or a traceback."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["our_message", "readable_errors"]

PACKAGE = Path(__file__).parents[1]


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn an error about the user's input into one message on standard error and exit status 2.

    Only errors that this package raised on purpose are shortened: a traceback that ends elsewhere
    is news, and is shown whole. ``PILE_TRACEBACK=1`` shows all of them.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        message = _limit_reached(error)
        if isinstance(error, ValueError | TypeError | OSError | ImportError | FloatingPointError):
            message = message or our_message(error)
        if message is None or os.environ.get("PILE_TRACEBACK"):
            raise
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from None


def _limit_reached(error: BaseException | None) -> str | None:
    """Return what to do where a process may have no more files open, else None."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in str(error):
            return (
                "too many open files; raise their number by `ulimit -n 4096` in the shell that "
                "starts this, or choose fewer data.num_workers and data.num_proc"
            )
        error = error.__cause__ or error.__context__
    return None


def our_message(error: BaseException) -> str | None:
    """Return what this package said when it raised ``error`` or what led to it, else None."""
    cause: BaseException | None = error
    while cause is not None:
        frames = traceback.extract_tb(cause.__traceback__)
        if frames and PACKAGE in Path(frames[-1].filename).parents:
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None
