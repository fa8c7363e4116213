"""``pile average``: the mean of a run's kept checkpoints, as one checkpoint of weights."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pile_lightning.checkpoint import AtomicCheckpointIO, load_whole
from pile_lightning.cli.runs import checkpoints_of
from pile_lightning.cli.screen import say
from pile_lightning.cli.short_errors import ShortErrorParser

__all__ = ["average", "average_parser", "mean_of_checkpoints"]

_TRAINING = ("optimizer_states", "lr_schedulers", "callbacks", "loops")


def average_parser() -> ShortErrorParser:
    """Return the parser of the command."""
    parser = ShortErrorParser(
        description="Write the mean of the weights of a run's kept checkpoints as a checkpoint "
        "file, to be scored, sampled from and exported."
    )
    parser.add_argument("run", type=str, help="Folder of a run, such as runs/quickstart.")
    parser.add_argument(
        "out", type=str | None, nargs="?", help="The file; checkpoints/average.ckpt by default."
    )
    parser.add_argument("--last", type=int | None, help="How many, the newest; all by default.")
    return parser


def average(run: str, out: str | None = None, *, last: int | None = None) -> None:
    """Write the mean of the weights of a run's kept checkpoints.

    Args:
        run: Folder of a run that had kept_checkpoints.every_n_steps, such as runs/quickstart.
        out: The file to write; checkpoints/average.ckpt of the run by default.
        last: How many of them, the newest; null for all.

    Raises:
        FileExistsError: Where there is something of that name.
        ValueError: Where the run has not as many, or they are of different networks.
    """
    kept = [path for path in checkpoints_of(Path(run)) if re.fullmatch(r"step-\d+", path.stem)]
    wanted = len(kept) if last is None else last
    if not 2 <= wanted <= len(kept):
        raise ValueError(
            f"a mean of last={wanted} checkpoints is asked for, and {run} has {len(kept)} kept "
            f"ones; choose from 2 to that, or keep more: "
            f"python train.py fit ... --kept_checkpoints.every_n_steps 100"
        )
    target = Path(run, "checkpoints", "average.ckpt") if out is None else Path(out)
    if target.exists():
        raise FileExistsError(f"{target} exists; remove it, or name another file")
    state = mean_of_checkpoints(kept[-wanted:])
    writer = AtomicCheckpointIO()
    writer.save_checkpoint(state, target)
    reason = writer.failed(target)
    if reason is not None:
        raise OSError(f"{target} could not be written: {reason}; make room, or name another place")
    steps = ", ".join(f"{step:,}" for step in state["summary"]["mean_of"])
    say(f"{target}: the mean of steps {steps}.")
    say("\nNext:")
    say(f"  python train.py validate --config {run}/config.yaml --ckpt_path {target}")
    say(f"  pile generate {run} --checkpoint {target}")


def mean_of_checkpoints(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the last checkpoint of ``paths`` with the mean of their weights, and none of training.

    Integers are those of the last. The mean of equal weights is those weights, bit for bit.

    Args:
        paths: Checkpoints of one network, files or folders.

    Raises:
        ValueError: Where their weights have not the same names and shapes, or one is damaged.
    """
    sums: dict[str, Tensor] = {}
    steps: list[int] = []
    for path in paths:
        state = load_whole(path, without=_TRAINING)
        weights = state["state_dict"]
        if steps and _shapes(weights) != _shapes(sums):
            raise ValueError(
                f"{path} and {paths[0]} hold different networks; average checkpoints of one run"
            )
        steps.append(state["global_step"])
        for name, value in weights.items():
            # float64: the mean of a few equal float32 numbers is that number
            exact = value.double() if value.is_floating_point() else value
            sums[name] = sums[name] + exact if name in sums and exact.is_floating_point() else exact
    state["state_dict"] = {
        name: (sums[name] / len(steps)).to(value.dtype) if value.is_floating_point() else value
        for name, value in weights.items()
    }
    state["summary"] = {"tokens": state.get("summary", {}).get("tokens"), "mean_of": steps}
    return state


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}
