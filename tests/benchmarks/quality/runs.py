"""Runs candidates, and keeps what they reached where it is found again."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.quality.ours import Ours
from tests.benchmarks.quality.records import Records
from tests.benchmarks.quality.trained import Candidate

__all__ = ["Found", "Runs"]

Found = dict[str, Any]


class Runs:
    """What was run, and where to run more.

    Args:
        records: Where results are kept.
        scratch: Where runs leave their folders, which are deleted once they are scored.
        shared: What holds for all runs and tells a comparison from another.
    """

    def __init__(self, records: Records, scratch: Path, shared: dict[str, Any]) -> None:
        self.records, self.scratch, self.shared = records, scratch, shared

    def key(self, candidate: Candidate, **more: Any) -> dict[str, Any]:
        """Return what a run is found by: ours by its config, too."""
        own = {"system": candidate.system, "settings": candidate.settings}
        if isinstance(candidate, Ours):
            text = json.dumps(candidate.config, sort_keys=True)
            own["config"] = hashlib.sha256(text.encode()).hexdigest()[:12]
        return {**self.shared, **own, **more}

    def run(self, candidate: Candidate, steps: int) -> Found:
        """Train and score a candidate.

        Raises:
            RunFailedError: If it fails.
        """
        folder = self.folder()
        try:
            done = candidate.train(steps, folder)
            scored = candidate.score(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        tokens = steps * candidate.tokens_a_step
        return {**done._asdict(), **scored._asdict(), "tokens": tokens}

    def folder(self) -> Path:
        """Return a place for a run's folder."""
        return Path(tempfile.mkdtemp(dir=self.scratch)) / "run"
