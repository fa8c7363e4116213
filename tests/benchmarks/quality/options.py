"""Settings of a candidate, as a line of text."""

from typing import Any

import yaml

__all__ = ["options"]


def options(line: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return ``defaults`` with what ``line`` sets.

    Raises:
        ValueError: For a name that is not among the defaults.

    Example:
        >>> options("lr=1.0e-3 compile=false", {"lr": 1.0, "compile": True, "layers": 4})
        {'lr': 0.001, 'compile': False, 'layers': 4}
    """
    found = dict(defaults)
    for part in line.split():
        name, _, value = part.partition("=")
        if name not in defaults:
            raise ValueError(f"{name!r} is no setting; there are {', '.join(defaults)}")
        parsed = yaml.safe_load(value)
        kind = type(defaults[name])
        found[name] = float(parsed) if kind is float else parsed
    return found
