"""A parser whose defaults keep their fields to themselves, and whose null reaches every setting."""

import re
from typing import Any

from jsonargparse import ArgumentParser, Namespace

__all__ = ["LeanDefaults"]

_WRITTEN_NULL = re.compile(r"^(--[\w.]+)=None$")


class LeanDefaults(ArgumentParser):
    """Keeps the fields of a default to the default's own class, and takes null at any depth.

    jsonargparse hands the fields of a config on to the class that takes its place, as far as that
    has them, which is meant for what a user has set. A default that lists its fields would hand
    them on as well: whoever names ``AdamWConfig`` in the place of ``MuonConfig`` would have Muon's
    learning rate. So a default says its class alone; its fields are filled in as parsing ends.

    Example:
        >>> parser = LeanDefaults()
        >>> action = parser.add_argument("--prompt", type=str)
        >>> parser.parse_args(["--prompt=None"]).prompt  # a word like others, where a user wrote it
        'None'
    """

    def parse_args(self, args: Any = None, *more: Any, **settings: Any) -> Any:
        """Parse, and take for null what jsonargparse writes of it when it asks a part's parser."""
        if "defaults" in settings:  # as it does then, and nobody else: a prompt may be "None"
            args = [_WRITTEN_NULL.sub(r"\1=null", str(each)) for each in args]
        return super().parse_args(args, *more, **settings)

    def get_defaults(self, *args: Any, **kwargs: Any) -> Namespace:
        """Return the defaults, those that are configs by their class where no field is special."""
        defaults: Namespace = super().get_defaults(*args, **kwargs)
        for action in self._actions:
            given = action.default
            if (
                isinstance(given, dict | Namespace)
                and "class_path" in given
                and not given.get("init_args")
                and isinstance(found := defaults.get(action.dest), Namespace)
                and "class_path" in found
            ):
                defaults[action.dest] = Namespace(class_path=found["class_path"])  # type: ignore[no-untyped-call]
        return defaults
