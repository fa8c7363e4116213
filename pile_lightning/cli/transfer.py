"""``pile transfer``: a sweep's best setting, as the config of a wide network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pile_lightning.cli.larger import Larger, find_larger, merged
from pile_lightning.cli.plan import plan_parser
from pile_lightning.cli.screen import say, wrapped
from pile_lightning.cli.short_errors import ShortErrorParser
from pile_lightning.cli.swept_run import SweptRun, read_swept_run
from pile_lightning.cli.transfer_lines import best_lines, carried_lines, change_lines
from pile_lightning.cli.transferred import Model, model_of, transferred
from pile_lightning.config import as_written, to_plain
from pile_lightning.whole_file import write_file

__all__ = ["transfer", "transfer_parser"]


def transfer_parser() -> ShortErrorParser:
    """Return the parser of the command."""
    parser = ShortErrorParser(
        description="Write the config of a large run that has the best setting of a sweep of "
        "narrow networks: learning rates follow the width, heads and hidden features grow with "
        "it. Text, batch and steps are those of the sweep, or of configs on top."
    )
    parser.add_argument("run", type=str, help="Folder of a finished sweep, such as runs/sweep.")
    parser.add_argument("--size", type=str | None, help="Layers, width and heads by a word: d12.")
    parser.add_argument("--d_model", type=int | None, help="Width, with heads of as many features.")
    parser.add_argument("--num_layers", type=int | None, help="Layers; as many as in the sweep.")
    parser.add_argument(
        "-c",
        "--config",
        type=str,
        action="append",
        default=[],
        help="What the large run has besides, such as configs/sizes/d12.yaml: all of it but the "
        "model, of which the size is taken; of several, later win.",
    )
    parser.add_argument("--member", type=str | None, help="Whose setting; the best by default.")
    parser.add_argument("--output", type=str, default="transferred.yaml", help="File to write.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace it if it exists.")
    return parser


def transfer(
    run: str,
    *,
    size: str | None = None,
    d_model: int | None = None,
    num_layers: int | None = None,
    config: Sequence[str] = (),
    member: str | None = None,
    output: str = "transferred.yaml",
    overwrite: bool = False,
) -> None:
    """Write the config of a large run with the best setting of a sweep.

    Args:
        run: Folder of a finished run of an environment.
        size: The large network's size by a word.
        d_model: Or its width.
        num_layers: And its layers; as many as in the sweep by default.
        config: Files of what the large run has besides.
        member: Whose setting is carried; of the best setting by default.
        output: The file to write.
        overwrite: Whether it may replace one.

    Raises:
        FileExistsError: Where there is such a file.
        FileNotFoundError: Where the folder is no run, or a config is missing.
        TypeError: For a network or an optimizer that does not know of widths.
        ValueError: For a run that ranks nothing yet, or a size that cannot be.
    """
    target = Path(output)
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"{target} exists; name another file by --output, or add --overwrite true"
        )
    larger = find_larger(size=size, d_model=d_model, num_layers=num_layers, configs=config)
    swept = read_swept_run(Path(run))
    setting = swept.choose(member)
    name = setting.names[0] if member is None else member
    narrow = model_of(swept, name)
    wide = transferred(narrow, larger)
    content = _config(swept, name, wide, larger, folder=f"{Path(run)}-{larger.label}")
    plan_parser().parse_object(content)  # says what is wrong, and leaves
    for lines in (
        best_lines(swept, setting, name),
        carried_lines(swept, name, wide),
        change_lines(narrow, wide, swept.config, content),
        _left_lines(swept, larger),
    ):
        if lines:
            say("\n".join(piece for line in lines for piece in wrapped(line)) + "\n")
    write_file(target, yaml.safe_dump(content, sort_keys=False))
    say(f"{target} is written.\n\nNext:")
    say(f"  pile plan --config {target}")
    say(f"  python train.py fit --config {target}")


def _config(
    swept: SweptRun, name: str, wide: Model, larger: Larger, *, folder: str
) -> dict[str, Any]:
    """Return the config of the large run: the sweep's, with configs on top, and one model."""
    trainer: dict[str, Any] = {"default_root_dir": folder}
    clip = swept.members[name]["gradient_clip_val"]
    if clip is not None:
        trainer["gradient_clip_val"] = clip
    content = merged(merged(swept.config, {"trainer": trainer}), larger.on_top)
    class_path = swept.members[name]["class_path"]
    content["model"] = {
        "class_path": class_path,
        "init_args": as_written(to_plain(dict(wide.settings))),
    }
    return content


def _left_lines(swept: SweptRun, larger: Larger) -> list[str]:
    lines = [
        f"Of {path} the model's {', '.join(names)} {'is' if len(names) == 1 else 'are'} not taken: "
        f"the sweep's best {'is' if len(names) == 1 else 'are'} carried."
        for path, names in larger.not_taken.items()
    ]
    if swept.is_coupled:
        lines.append("The coupling of members is left out: the large model learns alone.")
    return lines
