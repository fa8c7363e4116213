"""What keeping packed documents apart costs attention: by a mask, by FlexAttention, and not at all.

    python tests/benchmarks/documents.py                                    # on a GPU
    taskset -c 0 python tests/benchmarks/documents.py --device cpu --rows 1 --heads 4

Attention alone, compiled as in a block: rows of one document (causal, no mask), and rows that are
packed with documents of about as many tokens as ``--lengths`` says. Milliseconds are medians of the
rounds; a ratio is to rows of one document. FlexAttention has no backward on a CPU: there only the
forward is measured, and training does not use it.
"""

import argparse
import functools
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import Tensor

from pile_lightning.nn import masks
from pile_lightning.nn.attend import attend
from pile_lightning.nn.flex_documents import block_mask, flex_documents
from pile_lightning.nn.masks import Documents
from tests.benchmarks.systems.clocks import CLOCKS

Pass = Callable[[], object]


def pack(rows: int, seq: int, length: int, device: torch.device) -> Documents:
    """Return documents that end after any token with the same chance, ``length`` on average."""
    ends = torch.rand(rows, seq, device=device) < 1 / length
    return Documents.of(ends.cumsum(1))


def make(compute: Callable[..., Tensor], qkv: list[Tensor], *more: object) -> Pass:
    """Return a forward, and a backward where gradients are wanted."""
    direction = torch.randn_like(qkv[0])

    def run() -> None:
        with torch.set_grad_enabled(qkv[0].requires_grad):
            out = compute(*qkv, *more)
        if out.requires_grad:
            torch.autograd.grad(out, qkv, direction)

    return run


def ways(arguments: argparse.Namespace, device: torch.device) -> dict[str, Pass]:
    """Return what is compared."""
    shape = (arguments.rows, arguments.heads, arguments.seq, arguments.head_dim)
    dtype = getattr(torch, arguments.dtype)
    trains = device.type != "cpu"
    qkv = [torch.randn(shape, device=device, dtype=dtype, requires_grad=trains) for _ in range(3)]
    compiled = functools.partial(torch.compile, dynamic=False)
    plain, flex = compiled(attend), compiled(flex_documents)
    found = {"one document": make(plain, qkv, masks.CAUSAL)}
    for length in arguments.lengths:
        documents = pack(arguments.rows, arguments.seq, length, device)
        first = documents.first
        # as a network has them: what is said of documents is said once a step, for all its blocks
        found[f"{length} tokens, mask"] = make(plain, qkv, documents.allowed())
        found[f"{length} tokens, flex"] = make(flex, qkv, first, block_mask(first))
        found[f"{length} tokens, finding its blocks"] = functools.partial(block_mask, first)
    return found


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--dtype", default=None, help="by default bfloat16, on a CPU float32")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--head_dim", type=int, default=128)
    parser.add_argument("--seq", type=int, default=2048)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu measures the forward")
    if arguments.dtype is None:
        arguments.dtype = "bfloat16" if arguments.device == "cuda" else "float32"
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = ways(arguments, torch.device(arguments.device))
    clock = CLOCKS["device" if arguments.device == "cuda" else "process"]
    for run in found.values():  # compiles
        run()
    rounds = [[clock(run) for run in found.values()] for _ in range(arguments.rounds)]
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    print(f"{arguments.device}, torch {torch.__version__}, {arguments}\n")
    for name, seconds in zip(found, medians, strict=True):
        print(f"{name:<36}{1000 * seconds:9.2f} ms{seconds / medians[0]:8.2f}")


if __name__ == "__main__":
    main()
