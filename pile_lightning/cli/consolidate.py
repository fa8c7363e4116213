"""``pile consolidate``: a sharded checkpoint as one file, for a single process and other tools."""

from pathlib import Path

from pile_lightning.checkpoint import load_whole, read_summary, write_checkpoint
from pile_lightning.checkpoint.swap import standing
from pile_lightning.cli.runs import resolve_checkpoint
from pile_lightning.cli.screen import say
from pile_lightning.cli.short_errors import ShortErrorParser

__all__ = ["consolidate", "consolidate_parser"]


def consolidate_parser() -> ShortErrorParser:
    """Return the parser of the command."""
    parser = ShortErrorParser(
        description="Turn the folder of a sharded checkpoint into one ordinary checkpoint file."
    )
    parser.add_argument(
        "checkpoint", type=str, help="The folder of a checkpoint, or of a run (its last one)."
    )
    parser.add_argument(
        "out", type=str | None, nargs="?", help="The file to write; by default beside the folder."
    )
    return parser


def consolidate(checkpoint: str, out: str | None = None) -> None:
    """Turn the folder of a sharded checkpoint into one ordinary checkpoint file.

    Args:
        checkpoint: The folder of a checkpoint, or of a run (its last checkpoint).
        out: The file to write; beside the folder by default, as last-whole.ckpt.

    Raises:
        FileExistsError: Where there is something of that name.
        ValueError: Where the checkpoint is one file already, or damaged.
    """
    path = Path(resolve_checkpoint(checkpoint, Path()) or checkpoint)
    if standing(path).is_file():
        raise ValueError(f"{path} is one file already; use it as it is")
    target = path.with_name(f"{path.stem}-whole.ckpt") if out is None else Path(out)
    if target.exists():
        raise FileExistsError(f"{target} exists; remove it, or name another file")
    # it is as old as the folder: the newest is what a run goes on from
    state = load_whole(path) | {"summary": read_summary(path)}
    try:
        write_checkpoint(state, target)
    except OSError as error:
        raise OSError(
            f"{target} could not be written: {error}; make room, or name another place"
        ) from None
    say(f"{target}: step {state.get('global_step')}, {target.stat().st_size / 1e6:,.1f} MB.")
    run = path.parent.parent
    if (run / "config.yaml").is_file():
        say("\nNext:")
        say(f"  pile generate {run} --checkpoint {target}")
        say(f"  python train.py fit --config {run}/config.yaml --ckpt_path {target}")
