"""The folder of a run: where its checkpoints lie, and how an earlier run is kept."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from pile_lightning.cli.screen import say

__all__ = ["make_room", "resolve_checkpoint"]


def resolve_checkpoint(name: str | None, folder: Path) -> str | None:
    """Turn what a user calls a checkpoint into the path of one.

    Args:
        name: ``last`` or ``best`` of ``folder``, ``auto`` for the last if there is one, a
            checkpoint, the folder of a run (its last), a URL, or None for none.
        folder: The run's folder.

    Raises:
        FileNotFoundError: Where there is no such checkpoint; it lists those that there are.
    """
    if name is None or "://" in name:
        return name
    if name == "auto":
        path = folder / "checkpoints" / "last.ckpt"
        return str(path) if path.exists() else None
    if name in ("last", "best"):
        path = folder / "checkpoints" / f"{name}.ckpt"
    elif (Path(name) / "checkpoints").is_dir():
        path = Path(name) / "checkpoints" / "last.ckpt"
    else:
        path = Path(name)
    if path.exists():
        return str(path)
    there = sorted(str(p) for p in path.parent.glob("*.ckpt"))
    listed = f"{path.parent} holds {', '.join(there)}" if there else f"{path.parent} holds none"
    raise FileNotFoundError(
        f"there is no checkpoint {path} ({listed}); name one, or leave ckpt_path out to start anew"
    )


@rank_zero_only
def make_room(folder: Path) -> None:
    """Move an earlier run out of ``folder``, to the next free name: nothing of it is lost."""
    if not ((folder / "checkpoints").is_dir() or (folder / "metrics.csv").is_file()):
        return
    number = 1
    while (earlier := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(earlier)
    say(f"{folder} held an earlier run, which is now {earlier}.")
