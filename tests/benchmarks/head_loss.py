"""Head and cross-entropy, forward and backward, in several ways: time, memory, and error.

    python tests/benchmarks/head_loss.py
    python tests/benchmarks/head_loss.py --vocab 8192 --width 256 --precision fp32

Ours beside ``F.linear_cross_entropy`` with explicit chunks, the plain product and loss, and that
compiled. The weight is in float32 and cast each time, as in training. The error is that of the
mean, in nats, from the same logits summed in float64. Memory is that of a process of its own, above
input and weight; gradients count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from pile_lightning.nn import linear_cross_entropy  # noqa: E402
from tests.benchmarks.systems.clocks import process_seconds  # noqa: E402
from tests.benchmarks.systems.memory import UNPOOLED, step_memory  # noqa: E402

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Sum over whole logits."""
    logits = F.linear(hidden, weight.to(hidden.dtype)).float()
    return F.cross_entropy(logits, labels, reduction="sum")


def built_in(hidden: Tensor, weight: Tensor, labels: Tensor, *, chunk: int, policy: str) -> Tensor:
    """Sum by torch's own chunks."""
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk, acc_policy=policy)
    narrow = weight.to(hidden.dtype)
    return F.linear_cross_entropy(hidden, narrow, labels, reduction="sum", options=options)


def ways(*, compiles: bool) -> dict[str, Loss]:
    """Return what is compared, by name."""
    found: dict[str, Loss] = {"ours, eager": linear_cross_entropy, "plain": plain}
    if compiles:
        found["ours, compiled"] = partial(linear_cross_entropy, compile=True)
        found["plain, compiled"] = torch.compile(plain)
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):
        for policy in ("accurate", "compact"):
            for chunk in (512, 1024):
                name = f"F.linear_cross_entropy, {policy}, chunks of {chunk}"
                found[name] = partial(built_in, chunk=chunk, policy=policy)
    return found


class Problem:
    """Inputs, and one forward and backward."""

    def __init__(self, rows: int, width: int, vocab: int, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.hidden = torch.randn(rows, width).to(dtype).requires_grad_()
        self.weight = (0.5 * torch.randn(vocab, width) / width**0.5).requires_grad_()
        self.labels = torch.randint(vocab, (rows,))

    def run(self, loss: Loss) -> float:
        """Return the mean loss."""
        self.clear()
        total = loss(self.hidden, self.weight, self.labels)
        total.backward()
        return float(total.detach()) / len(self.labels)

    def clear(self) -> None:
        """Free the gradients."""
        self.hidden.grad = self.weight.grad = None

    @torch.no_grad()
    def exact(self) -> float:
        """Return the mean loss of the same logits, summed in float64."""
        total = 0.0
        for x, labels in zip(self.hidden.split(256), self.labels.split(256), strict=True):
            logits = F.linear(x, self.weight.to(x.dtype)).double()
            total += F.cross_entropy(logits, labels, reduction="sum").item()
        return total / len(self.labels)


def memory_apart(name: str) -> int:
    """Return the bytes of one way, measured in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--memory-of", name],
        env={**os.environ, **UNPOOLED},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vocab", type=int, default=32768)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="leave out what is compiled")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(settings.threads)
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    compared = ways(compiles=not settings.eager)
    problem = Problem(settings.rows, settings.width, settings.vocab, dtype)
    if settings.memory_of:
        loss = compared[settings.memory_of]
        problem.run(loss)
        print(step_memory(lambda: problem.run(loss), problem.clear, "cpu").step)
        return
    exact = problem.exact()
    losses = {name: problem.run(loss) for name, loss in compared.items()}
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(settings.rounds):
        for name, loss in compared.items():
            seconds[name].append(process_seconds(partial(problem.run, loss)))
    print(
        f"{settings.rows} x {settings.width} x {settings.vocab}, {settings.precision}, "
        f"{settings.threads} core\n\n| way | ms | memory | error |\n|---|---|---|---|"
    )
    for name, value in losses.items():
        ms = 1000 * statistics.median(seconds[name])
        print(
            f"| {name} | {ms:,.0f} | {memory_apart(name) / 1e6:,.0f} MB | {value - exact:+.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
