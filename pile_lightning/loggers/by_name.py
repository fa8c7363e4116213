"""Make a tracker's logger that writes into the run's folder and continues its run at a resume."""

import os
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from lightning.pytorch.loggers import Logger

__all__ = ["LoggerName", "make_logger", "run_id_file"]

LoggerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


def make_logger(name: LoggerName, folder: str | Path, *, resumed: bool = False) -> Logger:
    """Return the logger of a tracker.

    Args:
        name: Of the tracker.
        folder: The run's folder, where it writes, in a folder of its own.
        resumed: Continue the run that the tracker has in ``folder``.

    Raises:
        ValueError: For a name that there is not.
        ImportError: If its package is not installed; it names the extra.
    """
    if name not in _MAKERS:
        known = ", ".join(get_args(LoggerName))
        raise ValueError(f"logger={name!r} is no tracker here; choose one of {known}")
    found = find_spec(name)
    if found is None or found.origin is None:  # a mere folder of that name has none
        raise ImportError(
            f"--logger {name} needs the package {name!r}; "
            f"install it with `pip install 'pile-lightning[{name}]'`"
        )
    id_file = run_id_file(name, Path(folder))
    known_id = id_file.read_text("utf-8").strip() if resumed and id_file.is_file() else None
    return _MAKERS[name](Path(folder), known_id)


def run_id_file(name: str, folder: Path) -> Path:
    """Return the file that holds the tracker's name for the run."""
    return folder / name / "run-id.txt"


def _tensorboard(folder: Path, run_id: str | None) -> Logger:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False)


def _wandb(folder: Path, run_id: str | None) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(
        name=folder.name,
        save_dir=folder,
        project=os.environ.get("WANDB_PROJECT", "pile"),
        id=run_id or uuid.uuid4().hex[:12],
        resume="allow",
    )


def _mlflow(folder: Path, run_id: str | None) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    own = (folder / "mlflow").absolute()
    server = os.environ.get("MLFLOW_TRACKING_URI")
    return MLFlowLogger(
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", "pile"),
        run_name=folder.name,
        tracking_uri=server or f"sqlite:///{own / 'runs.db'}",
        artifact_location=None if server else (own / "artifacts").as_uri(),
        run_id=run_id,
    )


def _trackio(folder: Path, run_id: str | None) -> Logger:
    from pile_lightning.loggers.trackio import TrackioLogger

    return TrackioLogger(folder, name=run_id or f"{folder.name}-{uuid.uuid4().hex[:6]}")


_MAKERS: dict[str, Callable[[Path, str | None], Logger]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
