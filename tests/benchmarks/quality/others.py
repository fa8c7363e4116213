"""The systems of others that are here, ready to be given settings."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pile_lightning import TextData
from tests.benchmarks.quality.hugging_face import HuggingFace
from tests.benchmarks.quality.lit_gpt import LitGpt
from tests.benchmarks.quality.nano_gpt import NanoGpt, find_nano_gpt, write_tokens
from tests.benchmarks.quality.peer import lacks
from tests.benchmarks.quality.trained import Candidate

__all__ = ["add_peer_arguments", "find_others"]


def find_others(
    only: Sequence[str],
    *,
    nanogpt: str | None,
    data: TextData,
    scratch: Path,
    python: str,
    **shared: Any,
) -> dict[str, Callable[..., Candidate]]:
    """Return what makes a candidate from its ``settings``, by system, and say what is missing.

    Args:
        only: Systems that are wanted, of ``nanogpt``, ``hugging_face`` and ``litgpt``.
        nanogpt: Its folder or the address of its git repository.
        data: What is trained on and scored, once prepared.
        scratch: Where the tokens are written, and nanoGPT is cloned to.
        python: The interpreter that they run under.
        shared: Fields of all candidates.
    """
    found: dict[str, Callable[..., Candidate]] = {}
    own = {
        **shared,
        "data": data,
        "python": python,
        "tokens": write_tokens(data, scratch / "tokens"),
    }
    if "nanogpt" in only:
        try:
            source = find_nano_gpt(nanogpt, scratch)
            found["nanogpt"] = partial(NanoGpt, source=source, **own)
        except FileNotFoundError as missing:
            print(f"nanoGPT is missing: {missing}", flush=True)
    for name, told, make, modules in (
        ("hugging_face", "Hugging Face's Trainer", HuggingFace, ("transformers", "accelerate")),
        ("litgpt", "litgpt", LitGpt, ("litgpt.pretrain", "jsonargparse")),
    ):
        if name in only:
            why = lacks(python, "torch", *modules)
            if why is None:
                found[name] = partial(make, **own)
            else:
                print(f"{told} is missing: {why}", flush=True)
    return found


def add_peer_arguments(parser: argparse.ArgumentParser, python: str) -> None:
    """Let ``parser`` read where the systems of others are, ``python`` being the default."""
    parser.add_argument("--nanogpt", help="its folder, or the address of its git repository")
    parser.add_argument("--peers_python", default=python, help="what the others run under")
