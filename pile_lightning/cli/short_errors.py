"""Parsers whose errors fit on a line or two and name the nearest key that exists."""

import sys
from typing import Any, NoReturn, get_args

from pile_lightning.cli.errors import our_message
from pile_lightning.lean_defaults import LeanDefaults

__all__ = ["ShortErrorParser"]


class ShortErrorParser(LeanDefaults):
    """A parser for the commands of ``pile``: it says what is wrong in few words, with status 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the shortest message that says it, without the usage."""
        own = None if ex is None else our_message(ex)
        print(f"error: {own or self._shorten(message)}", file=sys.stderr)
        sys.exit(2)

    def _shorten(self, message: str) -> str:
        """Say a message in short, with the nearest of what the package ships."""
        # an import of seconds, which only a mistake should cost
        from pile_lightning.cli.known_names import shorten_message

        dests = [action.dest for action in self._actions if isinstance(action.dest, str)]
        return shorten_message(message, dests)

    def add_class_arguments(self, class_type: Any, *args: Any, **settings: Any) -> list[str]:
        """Add a class's settings; of data, a text that is a value itself is never read as a path.

        For any other value that names a file, jsonargparse takes what the file holds.
        """
        added: list[str] = super().add_class_arguments(class_type, *args, **settings)
        bases = {base.__name__ for base in getattr(class_type, "__mro__", ())}
        if "LightningDataModule" in bases:  # by its name: importing Lightning takes seconds
            for action in self._actions:
                if str in get_args(getattr(action, "_typehint", None)):
                    action._enable_path = False  # type: ignore[attr-defined]
        return added
