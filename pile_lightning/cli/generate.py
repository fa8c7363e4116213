"""``pile generate``: text from a run."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningModule

from pile_lightning.callbacks import continue_text
from pile_lightning.cli.runs import resolve_checkpoint
from pile_lightning.data import Tokenizer
from pile_lightning.parallel import as_file
from pile_lightning.parallel.swap import standing

__all__ = ["generate", "load_run"]


def load_run(run: Path, *, checkpoint: str | None = None) -> LightningModule:
    """Load the model of a run's folder, ready to use.

    The modules that ``config.yaml`` names are imported, which runs their code, as training did.

    Args:
        run: The run's folder.
        checkpoint: ``best``, ``last``, ``auto``, ``average``, a file or a folder; the best there is
            by default.

    Raises:
        FileNotFoundError: Where the folder is no run, or the checkpoint is missing.
        ValueError: Where the run's model cannot be imported.
    """
    config_path = run / "config.yaml"
    if not config_path.is_file():
        raise FileNotFoundError(
            f"{run} is not the folder of a run: it has no config.yaml; "
            f"train one with `python train.py fit --config configs/quickstart.yaml`"
        )
    config = yaml.safe_load(config_path.read_text(encoding="utf-8"))
    for class_path in _class_paths(config["model"]):
        module = class_path.rpartition(".")[0]
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"{config_path} uses {class_path}, and {module!r} cannot be imported ({error}); "
                f"install it, or add its folder to PYTHONPATH"
            ) from None
    if checkpoint is None:
        best = standing(run / "checkpoints" / "best.ckpt")
        checkpoint = "best" if best.exists() else "last"
    path = resolve_checkpoint(checkpoint, run)
    module_name, _, class_name = config["model"]["class_path"].rpartition(".")
    kind: type[LightningModule] = getattr(sys.modules[module_name], class_name)
    with as_file(str(path)) as file:
        return kind.load_from_checkpoint(file, map_location="cpu").eval()


def _class_paths(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if isinstance(config.get("class_path"), str):
            yield config["class_path"]
        for value in config.values():
            yield from _class_paths(value)
    elif isinstance(config, list):
        for value in config:
            yield from _class_paths(value)


def generate(
    run: str,
    *,
    prompt: str = "",
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    seed: int = 0,
    stop: list[str] | None = None,
    checkpoint: str | None = None,
) -> None:
    """Stream text that continues a prompt.

    Args:
        run: Folder of a run, such as runs/quickstart.
        prompt: Opening of the document.
        max_new_tokens: Tokens to add at most; past the context the oldest half is forgotten.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Draw among so many likeliest tokens; null for all.
        top_p: Draw among the likeliest tokens that together have this probability; null for all.
        seed: Of the draws; the same seed gives the same text.
        stop: Strings that end the text.
        checkpoint: best, last, auto, average, a file or a folder; the best there is by default.
    """
    folder = Path(run)
    model = load_run(folder, checkpoint=checkpoint)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    pieces = continue_text(
        model,
        tokenizer,
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop=stop or (),
    )
    sys.stdout.write(prompt)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
