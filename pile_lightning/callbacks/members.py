"""Where several models train in one run: their ranking, and a folder of a run for each of them."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from pile_lightning.callbacks.saving import checkpoint_folder
from pile_lightning.callbacks.side_files import SideFiles
from pile_lightning.callbacks.text_table import short, table
from pile_lightning.config import as_written
from pile_lightning.config_file import read_config
from pile_lightning.file_names import check_file_name
from pile_lightning.whole_file import write_file

__all__ = ["MemberRuns", "Ranks", "ranking_table", "write_member_runs"]

_MOST_REASON = 72


@runtime_checkable
class Ranks(Protocol):
    """A module of several models that knows which is better."""

    def ranking(self) -> list[dict[str, Any]]:
        """Return a row a member, the best first, also of those that are frozen."""


@runtime_checkable
class Splits(Protocol):
    """A module of several models whose checkpoint holds one of each."""

    def split_checkpoint(self, checkpoint: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the checkpoint of each member by name."""


def ranking_table(rows: list[dict[str, Any]]) -> list[str]:
    r"""Return a table of members, the best first, and a line for each that was stopped.

    Args:
        rows: As ``Ranks.ranking`` returns them.

    Example:
        >>> row = {"loss": 2.0, "parameters": 1000, "seed": 0, "stopped_step": None, "reason": None,
        ...        "skipped_steps": 0, "frozen": False}
        >>> rows = [row | {"name": "a", "bits_per_byte": 1.5},
        ...         row | {"name": "b", "bits_per_byte": 1.75, "stopped_step": 9, "reason": "nan"}]
        >>> print("\n".join(ranking_table(rows)))
                        held-out      held-out
             member  bits a byte  nats a token  parameters  seed  trained to
          1  a            1.5000        2.0000         1 k     0     the end
          2  b            1.7500        2.0000         1 k     0      step 9
          b stopped at step 9: nan
    """
    width = max([len("member"), *(len(row["name"]) for row in rows)])
    cells = [
        [
            f"{place}",
            row["name"].ljust(width),
            _digits(row["bits_per_byte"]),
            _digits(row["loss"]),
            short(row["parameters"]),
            str(row["seed"]),
            str(row["skipped_steps"] or ""),
            _trained_to(row),
        ]
        for place, row in enumerate(rows, start=1)
    ]
    header = [
        "",
        "member".ljust(width),
        "held-out\nbits a byte",
        "held-out\nnats a token",
        "parameters",
        "seed",
        "skipped",
        "trained to",
    ]
    stopped = [row for row in rows if row["reason"] is not None]
    return table(header, cells) + [
        f"  {row['name']} stopped at step {row['stopped_step']}: {row['reason'][:_MOST_REASON]}"
        for row in stopped
    ]


def _trained_to(row: Mapping[str, Any]) -> str:
    if row["frozen"]:
        return "frozen"
    return "the end" if row["stopped_step"] is None else f"step {row['stopped_step']}"


def _digits(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else ""


def write_member_runs(
    folder: Path,
    checkpoint: Mapping[str, Any],
    members: Mapping[str, Mapping[str, Any]],
    *,
    name: str,
    save: Callable[[dict[str, Any], str], None],
) -> list[Path]:
    """Make a folder of a run for each member, below ``members/`` in that of the run.

    It holds what a run of the member alone would have left to go on from and to use it: a
    checkpoint, ``config.yaml`` and ``tokenizer.json``.

    Args:
        folder: Of the run.
        checkpoint: Of the run.
        members: Checkpoints of the members.
        name: Of the checkpoint files.
        save: Writes a checkpoint to a path.

    Returns:
        The folders.
    """
    import yaml

    config_path, tokenizer_path = folder / "config.yaml", folder / "tokenizer.json"
    config = None
    if config_path.is_file():
        config = read_config(config_path)
    made = []
    for member, own in members.items():
        place = folder / "members" / check_file_name(member, of="a member of the checkpoint")
        save(dict(own), os.fspath(place / "checkpoints" / name))
        spec = checkpoint["hyper_parameters"]["members"][member]
        if config is not None:
            text = yaml.safe_dump(_config_of(spec, config, place), sort_keys=False)
            write_file(place / "config.yaml", text)
        if tokenizer_path.is_file():
            write_file(place / "tokenizer.json", tokenizer_path.read_bytes())
        made.append(place)
    return made


def _config_of(spec: Mapping[str, Any], config: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """Return the config of a run that trains a member alone."""
    trainer = {**(config.get("trainer") or {}), "default_root_dir": os.fspath(place)}
    if spec["gradient_clip_val"] is not None:
        trainer["gradient_clip_val"] = spec["gradient_clip_val"]
    model = {"class_path": spec["class_path"], "init_args": as_written(spec["init_args"])}
    own: dict[str, Any] = {**config, "trainer": trainer, "model": model}
    if spec["seed"] is not None:
        own["seed_everything"] = spec["seed"]
    return own


class MemberRuns(Callback):
    """Leave a folder of a run for each member when training ends: ``members/<name>/``."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them, from the last checkpoint."""
        folder = checkpoint_folder(trainer)  # a collective: on every rank
        if isinstance(pl_module, Splits) and not trainer.fast_dev_run:
            self._write(trainer, pl_module, Path(folder))

    @staticmethod
    @rank_zero_only
    def _write(trainer: Trainer, pl_module: Splits, folder: Path) -> None:
        files = trainer.strategy.checkpoint_io
        last = folder / "last.ckpt"
        if last.is_file():
            checkpoint = files.load_checkpoint(os.fspath(last), weights_only=True)
            members = pl_module.split_checkpoint(checkpoint)
            SideFiles().write(
                folder.parent / "members",
                lambda: write_member_runs(
                    folder.parent, checkpoint, members, name=last.name, save=files.save_checkpoint
                ),
            )
