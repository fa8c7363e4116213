"""The folder of a run: where its checkpoints lie."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from pile_lightning.checkpoint import age_order, check_readable, read_summary, verify_checkpoint
from pile_lightning.checkpoint.swap import standing

__all__ = ["checkpoints_of", "newest_checkpoint", "resolve_checkpoint"]


def resolve_checkpoint(name: str | None, folder: Path, *, may_be_fresh: bool = False) -> str | None:
    """Turn what a user calls a checkpoint into the path of one.

    Args:
        name: ``auto``, ``last``, ``best`` or ``average`` of ``folder``, a checkpoint, the folder of
            a run (its last), a URL, or None for none.
        folder: The run's folder.
        may_be_fresh: Whether ``auto`` is None where ``folder`` has no good checkpoint.

    Raises:
        FileNotFoundError: Where there is no such checkpoint; it lists those that there are.
    """
    if name is None or "://" in name:
        return name
    if name == "auto":
        newest = newest_checkpoint(folder)
        if newest is None and not may_be_fresh:
            raise FileNotFoundError(
                f"there is no good checkpoint in {folder}; train one with `python train.py fit`"
            )
        return None if newest is None else str(newest)
    if name in ("last", "best", "average"):
        path = folder / "checkpoints" / f"{name}.ckpt"
    elif (Path(name) / "checkpoints").is_dir():
        path = Path(name) / "checkpoints" / "last.ckpt"
    else:
        path = Path(name)
    if standing(path).exists():
        return str(path)
    there = [str(p) for p in checkpoints_of(path.parent)]
    listed = f"{path.parent} holds {', '.join(there)}" if there else f"{path.parent} holds none"
    raise FileNotFoundError(
        f"there is no checkpoint {path} ({listed}); name one, or leave ckpt_path out to start anew"
    )


def checkpoints_of(folder: Path) -> list[Path]:
    """Return the checkpoints of a run by name: files or folders, good or not.

    Besides those in ``checkpoints/`` there are those that Lightning saves beside it when a cluster
    tells the run to leave.
    """
    found = set()
    for place in (folder, folder / "checkpoints"):
        found |= set(place.glob("[!.]*.ckpt"))
        # a kill came while it was replaced
        aside = place.glob(".*.ckpt.old")
        found |= {place / path.name.removeprefix(".").removesuffix(".old") for path in aside}
    return sorted(found)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run that is whole, or None; a warning names the others.

    The newest is the one that was saved last, not that of the highest step: a run that went back
    goes on from where it went. It depends on the files alone, so all ranks find the same one.
    """
    broken: list[str] = []
    known: list[tuple[tuple[int, float, int], Path]] = []
    for path in checkpoints_of(folder):
        try:
            summary = read_summary(path)
            if "mean_of" in summary:
                continue  # weights alone, which no run goes on from
            known.append((age_order(summary), path))
        except (ValueError, TypeError, KeyError, OSError) as error:
            broken.append(str(error))
    newest = None
    for _, path in sorted(known, reverse=True):
        try:
            verify_checkpoint(path)
            check_readable(path)  # whole, and yet of something that is never loaded
        except (ValueError, OSError) as error:
            broken.append(str(error))
        else:
            newest = path
            break
    if broken:
        instead = "Starting anew" if newest is None else f"Going on from {newest}"
        reasons = "; ".join(why.removesuffix("; take another checkpoint") for why in broken)
        rank_zero_warn(f"{instead}, passing over what cannot be used: {reasons}")
    return newest
