"""``train.py fit`` as a process, from a changed config."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.quality.changes import Config, changed, write_config
from tests.benchmarks.quality.processes import run_process

__all__ = ["Fitted", "fit"]

REPOSITORY = Path(__file__).parents[3]
STEP_CLOCK = "tests.benchmarks.quality.step_clock.StepClock"


class Fitted(NamedTuple):
    """A run of ``train.py`` that has ended."""

    folder: Path
    """The run's folder."""
    seconds: float
    """From the start of the process to the end of the last step."""
    seconds_a_step: float
    """On the wall."""
    cpu_seconds_a_step: float
    """Of all threads."""


def fit(
    config: Config,
    *,
    steps: int,
    folder: Path,
    environment: Mapping[str, str],
    timeout: float,
    changes: Mapping[str, Any] | None = None,
) -> Fitted:
    """Train by ``config`` for ``steps`` steps and score at most once, at the end.

    Args:
        config: All settings.
        steps: Optimizer steps, which the schedule spreads over.
        folder: Where config, log and the run's folder go.
        environment: Variables of the process.
        timeout: Seconds that it may take.
        changes: Further changes of the config, by dotted name.

    Raises:
        RunFailedError: If it fails.
    """
    settings = {
        "trainer.max_steps": steps,
        "trainer.val_check_interval": steps,
        "trainer.default_root_dir": str(folder / "run"),
        "trainer.enable_progress_bar": False,
        "trainer.callbacks": [{"class_path": STEP_CLOCK}],
        "last_checkpoint.every_n_steps": steps,
        "samples.max_new_tokens": 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = write_config(changed(config, {**settings, **(changes or {})}), folder / "config.yaml")
    command = [sys.executable, str(REPOSITORY / "train.py"), "fit", "--config", str(path)]
    started = run_process(command, folder=folder, environment=environment, timeout=timeout)
    clock = json.loads((folder / "run" / "clock.json").read_text())
    return Fitted(
        folder=folder / "run",
        seconds=clock["ended"] - started,
        seconds_a_step=clock["seconds_a_step"],
        cpu_seconds_a_step=clock["cpu_seconds_a_step"],
    )
