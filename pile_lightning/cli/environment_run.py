"""The folder of a run of several models: its last checkpoint, without what is large."""

from pathlib import Path
from typing import Any

from pile_lightning.checkpoint import load_whole
from pile_lightning.cli.runs import resolve_checkpoint

__all__ = ["load_environment"]


def load_environment(run: Path, *, needs: str, like: str) -> dict[str, Any]:
    """Return the last checkpoint of a run of an environment, without weights and optimizers.

    Args:
        run: The folder.
        needs: What one model is not enough for, for an error.
        like: A config that trains several.

    Raises:
        FileNotFoundError: Where it is no run, or has no checkpoint.
        ValueError: Where the run was of one model.
    """
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(
            f"{run} is not the folder of a run: it has no config.yaml; train one with "
            f"`python train.py fit --config {like}`"
        )
    path = resolve_checkpoint("last", run)
    assert path is not None
    checkpoint = load_whole(path, without=("state_dict", "optimizer_states"))
    if "environment" not in checkpoint:
        raise ValueError(
            f"{run} is a run of one model, and {needs}; train them in one run, as {like} does"
        )
    return checkpoint
