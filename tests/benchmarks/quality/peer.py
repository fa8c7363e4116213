"""A system of others', with its settings, in a process of its own."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pile_lightning import TextData
from tests.benchmarks.quality.options import options
from tests.benchmarks.quality.processes import run_process

__all__ = ["Peer", "lacks"]


def lacks(python: str, *modules: str) -> str | None:
    """Say what of ``modules`` is missing under ``python``, or None where all are there."""
    if shutil.which(python) is None:
        return f"there is no {python}; name a Python that has {', '.join(modules)}"
    command = [python, "-c", f"import {', '.join(modules)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return f"{done.stderr.splitlines()[-1]} under {python}; pip install what is missing there"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What all candidates of other systems have in common."""

    defaults: ClassVar[dict[str, Any]]
    """Of its settings."""

    settings: str
    """What differs from the defaults."""
    tokens: Path
    """Folder of ``train.bin``."""
    data: TextData
    """What is scored."""
    python: str
    """The interpreter that it runs under."""
    environment: Mapping[str, str]
    """Variables of its process."""
    timeout: float
    """Seconds that a run may take."""
    val_batches: int | None = None
    """Batches that are scored; all by default."""

    def __post_init__(self) -> None:
        options(self.settings, self.defaults)

    @property
    def options(self) -> dict[str, Any]:
        """All settings."""
        return options(self.settings, self.defaults)

    def run(self, *command: str, folder: Path) -> float:
        """Run a command of Python, its compile cache empty unless the environment names another.

        Returns:
            When it was started, in seconds since the epoch.
        """
        return run_process(
            [self.python, *command],
            folder=folder,
            environment={"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), **self.environment},
            timeout=self.timeout,
        )
