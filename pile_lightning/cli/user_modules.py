"""A user's own modules, named by ``class_path``, lie where the command is run."""

import os
import sys

__all__ = ["see_users_modules"]


def see_users_modules() -> None:
    """Find modules in the working directory, after those that are installed."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
