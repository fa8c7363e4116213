"""What runs reached, a line of JSON each, so that what was interrupted goes on."""

import json
import threading
from pathlib import Path
from typing import Any

__all__ = ["Records"]


class Records:
    """Results by key, in a file that only grows.

    Args:
        path: The file; it need not be there. A last line that is cut short is dropped.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "found.jsonl")
        >>> Records(path).add({"row": "base", "seed": 0}, bits=1.5)
        >>> Records(path).find({"seed": 0, "row": "base"})
        {'bits': 1.5}
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        whole = []
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            whole.append(line)
            self._found[_name(record["key"])] = record["found"]
        if len(whole) < len(lines):
            path.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")

    def find(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """Return what was found of ``key``, or None."""
        return self._found.get(_name(key))

    def add(self, key: dict[str, Any], **found: Any) -> None:
        """Keep what was found of ``key``."""
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            self._found[_name(key)] = found
            file.write(json.dumps({"key": key, "found": found}) + "\n")


def _name(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
