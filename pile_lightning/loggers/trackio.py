"""A logger for Trackio, Hugging Face's local tracker, which Lightning has none for."""

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

__all__ = ["TrackioLogger"]


class TrackioLogger(Logger):
    """Log to a Trackio project; ``trackio show --project pile`` opens its page.

    Args:
        save_dir: The run's folder; the database lies in ``trackio/`` there, or in ``$TRACKIO_DIR``.
        name: Of the run; one that exists is continued.
        project: Of the project.
    """

    def __init__(self, save_dir: str | Path, *, name: str, project: str = "pile") -> None:
        super().__init__()
        self._save_dir = Path(save_dir)
        self._name = name
        self._project = project
        self._run: Any = None
        self._config: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The project's name."""
        return self._project

    @property
    def version(self) -> str:
        """The run's name."""
        return self._name

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._save_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Trackio's run, begun when it is first used."""
        if self._run is None:
            # Trackio reads it as it is imported
            os.environ.setdefault("TRACKIO_DIR", str((self._save_dir / "trackio").absolute()))
            import trackio

            self._run = trackio.init(
                project=self._project,
                name=self._name,
                config=self._config,
                resume="allow",
                embed=False,
            )
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Keep them for the run's page."""
        self._config |= vars(params) if isinstance(params, Namespace) else dict(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values by name.

        Args:
            metrics: Values by name.
            step: Lightning's number of the step, counted from 0.
        """
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what is waiting, and end the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None
