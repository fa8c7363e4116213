"""``pile checkpoints``: what a run has saved, and whether it is whole."""

from datetime import datetime
from pathlib import Path
from typing import Any

from pile_lightning.callbacks.text_table import short, table
from pile_lightning.checkpoint import checkpoint_size, read_summary, verify_checkpoint
from pile_lightning.cli.runs import checkpoints_of
from pile_lightning.data.progress import make_bar

__all__ = ["list_checkpoints"]

HEADER = [
    "name",
    "step",
    "tokens",
    "train\nloss",
    "held-out\nbits a byte",
    "",
    "MB",
    "saved",
    "health",
]


def list_checkpoints(run: str, *, check: bool = True) -> None:
    """List the checkpoints of a run: step, tokens, losses, size, and whether they are whole.

    Args:
        run: Folder of a run, such as runs/quickstart.
        check: Read all of them to compare their checksums; otherwise health is not known.

    Raises:
        FileNotFoundError: Where the folder has no checkpoints.
    """
    paths = checkpoints_of(Path(run))
    if not paths:
        raise FileNotFoundError(
            f"{run} has no checkpoints; name the folder of a run, such as runs/quickstart"
        )
    problems: list[str] = []
    rows = []
    total = sum(checkpoint_size(path) for path in paths)
    with make_bar("checking", total, not check) as bar:
        for path in paths:
            rows.append(_row(path, check, bar.update, problems))
    rows.sort(key=lambda row: (row[0], row[1]))
    print("\n".join(table(HEADER, [cells for _, _, cells in rows])))
    for problem in problems:
        print(f"\n{problem}")
    if Path(run, "config.yaml").is_file():
        print("\nNext:")
        print(f"  python train.py fit --config {run}/config.yaml --ckpt_path auto")


def _row(
    path: Path, check: bool, on_bytes: Any, problems: list[str]
) -> tuple[float, str, list[str]]:
    summary: dict[str, Any] = {}
    health = "not checked"
    try:
        summary = read_summary(path)
        if check:
            verify_checkpoint(path, on_bytes=on_bytes)
            health = "good"
    except (ValueError, OSError) as error:
        health = "damaged"
        problems.append(str(error))
    step, scored = summary.get("step"), summary.get("scored_step")
    score = summary.get("val/bits_per_byte")
    cells = [
        path.name,
        "" if step is None else f"{step:,}",
        "" if summary.get("tokens") is None else short(summary["tokens"]),
        _digits(summary.get("train/loss")),
        _digits(score),
        "" if score is None or scored == step else f"at {scored:,}",
        f"{checkpoint_size(path) / 1e6:,.1f}",
        _when(summary.get("saved_at")),
        health,
    ]
    return (float("inf") if step is None else step), path.name, cells


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _when(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
