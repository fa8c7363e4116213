"""Regional compilation: one compiled block serves all layers, and start-up is that of one."""

import inspect
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pile_lightning.nn import Uniform
from pile_lightning.parallel.blocks import blocks_of

__all__ = ["compile_blocks", "for_many_shapes", "why_not_compile"]

_MOST_SHAPES = 256


def why_not_compile() -> str | None:
    """Say what ``torch.compile`` lacks on this machine, or None where it can run."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler}) was found; install one, or name it in CXX"
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not header.is_file():
        return f"{header} is missing; install the headers of this Python (python3-dev)"
    return None


def for_many_shapes() -> dict[str, Any]:
    """Return arguments of ``torch.compile`` for what unlike models of one process have in common.

    Without them torch stops compiling after eight shapes of one function. Releases before 2.13 do
    not know them.
    """
    known = "recompile_limit" in inspect.signature(torch.compile).parameters
    return {"recompile_limit": _MOST_SHAPES} if known else {}


def compile_blocks(network: nn.Module) -> None:
    """Compile each of ``network.blocks`` in place, or the whole network where it names no blocks.

    State-dict keys stay what they were.
    """
    if isinstance(network, Uniform):
        network.make_uniform()
    for block in blocks_of(network):
        block.compile(**for_many_shapes())
