"""``pile members``: a folder of a run for each member of an environment."""

from pathlib import Path

from pile_lightning.callbacks.members import write_member_runs
from pile_lightning.checkpoint import AtomicCheckpointIO, load_whole
from pile_lightning.checkpoint_settings import hyper_parameters
from pile_lightning.cli.run_config import import_model_class
from pile_lightning.cli.runs import resolve_checkpoint
from pile_lightning.cli.screen import say
from pile_lightning.modules import Environment
from pile_lightning.modules.environment.specs import specs_of

__all__ = ["members"]


def members(run: str, *, checkpoint: str = "last") -> None:
    """Write the members of an environment's checkpoint as runs of their own.

    Args:
        run: Folder of a run that trained an environment, such as runs/sweep.
        checkpoint: last, best, auto, average, or a file.

    Raises:
        FileNotFoundError: Where there is no such checkpoint.
        OSError: Where a member's cannot be written.
        ValueError: Where it is of one model.
    """
    path = resolve_checkpoint(checkpoint, Path(run))
    assert path is not None
    if (Path(run) / "config.yaml").is_file():
        import_model_class(Path(run))
    state = load_whole(path)
    # what the members' own configs will name, which a checkpoint must not make anyone import
    specs_of(hyper_parameters(state, name=path), name=path)
    writer = AtomicCheckpointIO()
    name = Path(path).name
    folders = write_member_runs(
        Path(run),
        state,
        Environment.split_checkpoint(state),
        name=name,
        save=writer.save_checkpoint,
    )
    for folder in folders:
        reason = writer.failed(str(folder / "checkpoints" / name))
        if reason is not None:
            raise OSError(f"{folder} could not be written: {reason}; make room, and try again")
        say(str(folder))
    say("\nNext:")
    say(f'  pile generate {folders[0]} --prompt "def "')
