"""The folder of a run of several models: its last checkpoint and its members' last scores."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pile_lightning.callbacks import read_metrics
from pile_lightning.checkpoint import load_whole
from pile_lightning.checkpoint_settings import hyper_parameters
from pile_lightning.cli.run_config import import_model_class
from pile_lightning.cli.runs import resolve_checkpoint
from pile_lightning.modules.environment.specs import specs_of

__all__ = ["last_value", "load_environment", "read_scores"]


def load_environment(run: Path, *, needs: str, like: str) -> dict[str, Any]:
    """Return the last checkpoint of a run of an environment, without weights and optimizers.

    What its members are made of is imported already: nothing is imported because of it.

    Args:
        run: The folder.
        needs: What one model is not enough for, for an error.
        like: A config that trains several.

    Raises:
        FileNotFoundError: Where it is no run, or has no checkpoint.
        ValueError: Where the run was of one model.
    """
    import_model_class(run, like=like)
    path = resolve_checkpoint("last", run)
    assert path is not None
    checkpoint = load_whole(path, without=("state_dict", "optimizer_states"))
    if "environment" not in checkpoint:
        raise ValueError(
            f"{run} is a run of one model, and {needs}; train them in one run, as {like} does"
        )
    settings = hyper_parameters(checkpoint, name=path)
    members = {name: spec.plain() for name, spec in specs_of(settings, name=path).items()}
    checkpoint["hyper_parameters"] = settings | {"members": members}
    return checkpoint


def read_scores(run: Path, names: Iterable[str]) -> dict[str, tuple[int, float] | None]:
    """Return the last step at which each member was scored, with its held-out bits per byte.

    They are in ``metrics.csv``: the last checkpoint is written before the last validation.

    Raises:
        ValueError: Where no member has a score.
    """
    rows = read_metrics(run / "metrics.csv")
    scores = {name: last_value(rows, f"val/{name}/bits_per_byte") for name in names}
    if not any(scores.values()):
        raise ValueError(
            f"no member of {run} has a held-out score in metrics.csv; let the run be validated: "
            f"set trainer.val_check_interval to at most trainer.max_steps"
        )
    return scores


def last_value(rows: Sequence[dict[str, float]], column: str) -> tuple[int, float] | None:
    """Return the last value of a column of metrics with its step, or None."""
    return next(((int(r["step"]), r[column]) for r in reversed(rows) if column in r), None)
