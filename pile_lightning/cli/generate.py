"""``pile generate``: text from a run."""

import sys
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningModule

from pile_lightning.callbacks import continue_text, continue_texts
from pile_lightning.checkpoint.swap import standing
from pile_lightning.cli.prompts import read_prompts, write_continuations
from pile_lightning.cli.run_config import import_model_class
from pile_lightning.cli.runs import resolve_checkpoint
from pile_lightning.cli.standard_streams import output_lost
from pile_lightning.data import Tokenizer
from pile_lightning.modules.loading import load_module
from pile_lightning.nn import Quantization

__all__ = ["generate", "load_run"]

DTYPES = {"auto": None, "bf16": torch.bfloat16, "float32": torch.float32}


def load_run(run: Path, *, checkpoint: str | None = None) -> LightningModule:
    """Load the model of a run's folder, ready to use.

    The modules that ``config.yaml`` names are imported, which runs their code, as training did;
    those that the checkpoint names are not.

    Args:
        run: The run's folder.
        checkpoint: ``best``, ``last``, ``auto``, ``average``, a file or a folder; the best there is
            by default.

    Raises:
        FileNotFoundError: Where the folder is no run, or the checkpoint is missing.
        ValueError: Where the run's model cannot be imported.
    """
    kind = import_model_class(run)
    if checkpoint is None:
        best = standing(run / "checkpoints" / "best.ckpt")
        checkpoint = "best" if best.exists() else "last"
    path = resolve_checkpoint(checkpoint, run)
    assert path is not None
    bases = kind.__mro__[: kind.__mro__.index(LightningModule)]
    if any("load_from_checkpoint" in vars(base) for base in bases):
        module: LightningModule = kind.load_from_checkpoint(path, map_location="cpu")
    else:  # Lightning's own would run what the checkpoint names
        module = load_module(kind, path, map_location="cpu")
    return module.eval()


def generate(
    run: str,
    *,
    prompt: str = "",
    prompts: str | None = None,
    output: str | None = None,
    batch_size: int = 8,
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = 50,
    top_p: float | None = 0.95,
    dry_multiplier: float = 0.4,
    seed: int = 0,
    stop: list[str] | None = None,
    checkpoint: str | None = None,
    precision: Literal["auto", "bf16", "float32"] = "auto",
    quantize: Quantization = "none",
) -> None:
    """Stream text that continues a prompt, or continue every prompt of a file.

    Args:
        run: Folder of a run, such as runs/quickstart.
        prompt: Opening of the document.
        prompts: A file of openings: one a line, or .jsonl with a string or {"prompt": ...} a line.
        output: Where the continuations of a file go, as JSON lines; the screen by default.
        batch_size: Prompts of a file that are continued side by side; but for rounding, their text
            does not depend on it.
        max_new_tokens: Tokens to add at most; past the context the oldest half is forgotten.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Draw among so many likeliest tokens; null for all.
        top_p: Draw among the likeliest tokens that together have this probability; null for all.
        dry_multiplier: What a token's logit loses where it would make a repeat of two tokens
            longer, and 1.75 times as much for each token that the repeat has more; 0 for nothing.
        seed: Of the draws; the same seed gives the same text.
        stop: Strings that end the text.
        checkpoint: best, last, auto, average, a file or a folder; the best there is by default.
        precision: What weights are cast to, once; auto is bf16 where the machine multiplies it
            faster than float32.
        quantize: int8 rounds the weights of linear layers to one byte: half the memory, and faster
            on CPU for up to four prompts side by side.
    """
    folder = Path(run)
    if prompts is None and output is not None:
        raise ValueError(f"output={output!r} is for the prompts of a file; give --prompts too")
    if prompts is not None and prompt:
        raise ValueError(f"prompt={prompt!r} and prompts={prompts!r} are two sources; give one")
    openings = None if prompts is None else read_prompts(Path(prompts))
    model = load_run(folder, checkpoint=checkpoint)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    if hasattr(model, "optimize_for_inference"):
        model.optimize_for_inference(dtype=DTYPES[precision], quantize=quantize)
    elif precision != "auto" or quantize != "none":
        raise ValueError(
            f"precision={precision} and quantize={quantize} are for models with a method "
            f"optimize_for_inference, and {type(model).__name__} has none; leave them out"
        )
    settings: Any = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "dry_multiplier": dry_multiplier,
        "seed": seed,
        "stop": stop or (),
    }
    if openings is not None:
        found = continue_texts(model, tokenizer, openings, batch_size=batch_size, **settings)
        write_continuations(found, openings, None if output is None else Path(output))
        return
    lost = output_lost()
    if lost is not None:
        raise ValueError("standard output is closed, and the text would be lost; open it")
    sys.stdout.write(prompt)
    for piece in continue_text(model, tokenizer, prompt, **settings):
        sys.stdout.write(piece)
        if output_lost() is not None:
            return
    sys.stdout.write("\n")
