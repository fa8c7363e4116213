"""Our training step beside those of other systems: the same size, optimizer and precision.

    python tests/benchmarks/peers.py                          # one core, its CPU time
    python tests/benchmarks/peers.py --size large --precision fp32
    python tests/benchmarks/peers.py --clock wall --threads 2
    python tests/benchmarks/peers.py --device cuda

``pip install -e '.[peers]' && pip install --no-deps litgpt torchtitan`` brings the others; what is
missing is said to be missing. All train in one process, in turn, a few steps each a round, each in
the fastest of its modes (those that a first trial finds within a fifth of the fastest all take part
in the rounds); ratios are taken inside a round, and the median over rounds is shown, for a machine
drifts. Head and embedding are tied in all, and all have the parameters and products of a
Llama of that size. Memory is that of a step in a process of its own, above what is held between
steps (weights and the optimizer's moments). Utilisation is by matrix products, of the rate of large
ones in the same rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from tqdm import tqdm  # noqa: E402

from tests.benchmarks.systems import SIZES, Size, System, Trainee, all_systems  # noqa: E402
from tests.benchmarks.systems.clocks import CLOCKS, Clock  # noqa: E402
from tests.benchmarks.systems.memory import UNPOOLED, StepMemory, step_memory  # noqa: E402

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Setting(NamedTuple):
    """What holds for all systems of a run."""

    size: Size
    precision: str
    device: torch.device

    def make(self, system: System, mode: str) -> Callable[[], Tensor]:
        """Make a network and return what takes one step with it and gives the loss before."""
        torch.manual_seed(0)
        return Step(system.modes[mode](self.size, self.device), self)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return token ids and labels (batch, seq), always the same."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.size.batch_size, self.size.seq_len + 1)
        ids = torch.randint(self.size.vocab_size, shape, generator=generator)
        return ids[:, :-1].contiguous().to(self.device), ids[:, 1:].contiguous().to(self.device)

    def peak(self, clock: Clock) -> float:
        """Measure the rate of large matrix products, in operations a second."""
        n = 8192 if self.device.type == "cuda" else 64 * self.size.head_dim // 2
        factor = torch.randn(n, n, device=self.device, dtype=DTYPES[self.precision])
        out = torch.empty_like(factor)
        torch.mm(factor, factor, out=out)
        return 2 * n**3 / min(clock(lambda: torch.mm(factor, factor, out=out)) for _ in range(3))


class Step:
    """Takes a training step on the same batch at each call."""

    def __init__(self, trainee: Trainee, setting: Setting) -> None:
        self.trainee = trainee
        self.batch = setting.batch()
        self.autocast = torch.autocast(
            setting.device.type, torch.bfloat16, enabled=setting.precision == "bf16"
        )

    def __call__(self) -> Tensor:
        """Return the loss before the step."""
        self.zero()
        with self.autocast:
            loss = self.trainee.loss(*self.batch)
        loss.backward()
        self.trainee.optimizer.step()
        return loss.detach()

    def zero(self) -> None:
        """Free the gradients."""
        self.trainee.optimizer.zero_grad(set_to_none=True)

    @property
    def num_parameters(self) -> int:
        """Parameters, tied ones once."""
        return sum(parameter.numel() for parameter in self.trainee.network.parameters())


class Line(NamedTuple):
    """A system in one of its modes, and what was measured of it."""

    system: System
    mode: str
    step: Step
    first_loss: float
    seconds: list[float]

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)


def flops(size: Size) -> float:
    """Count the operations of a training step in products, nothing taken off for the mask."""
    blocks = 12 * size.num_layers * size.d_model**2
    a_token = 6 * (blocks + size.vocab_size * size.d_model)
    a_token += 12 * size.num_layers * size.d_model * size.seq_len
    return float(a_token * size.batch_size * size.seq_len)


def contenders(
    system: System, setting: Setting, clock: Clock, *, tries: int, modes: str
) -> list[Line]:
    """Try the modes of a system; keep the fastest, and those too close to it to be told apart."""
    found: list[tuple[float, Line]] = []
    for mode in system.modes:
        if modes not in ("all", mode) and len(system.modes) > 1:
            continue
        step = setting.make(system, mode)
        first_loss = float(step())
        step()
        seconds = min(clock(step) for _ in range(tries))
        tqdm.write(f"{system.name}, {mode}: {seconds:.3f} s a step", file=sys.stderr)
        found.append((seconds, Line(system, mode, step, first_loss, [])))
    least = min((seconds for seconds, _ in found), default=0.0)
    return [line for seconds, line in found if seconds < 1.2 * least]


def fastest_modes(lines: Sequence[Line]) -> list[Line]:
    """Return each system's line of the least median over the rounds, in order."""
    best: dict[str, Line] = {}
    for line in lines:
        other = best.get(line.system.name)
        if other is None or line.median < other.median:
            best[line.system.name] = line
    return list(best.values())


def measure(
    lines: Sequence[Line], setting: Setting, clock: Clock, *, rounds: int, steps: int
) -> list[float]:
    """Let all take steps in turn; return the rate of products of each round."""
    peaks = []
    for number in tqdm(range(rounds), leave=False):
        peaks.append(setting.peak(clock))
        start = number % len(lines)  # nobody is always the one after the slowest
        for line in (*lines[start:], *lines[:start]):
            line.seconds.append(
                clock(lambda step=line.step: [step() for _ in range(steps)]) / steps
            )
    return peaks


def memory_apart(line: Line, arguments: Sequence[str]) -> StepMemory:
    """Measure the memory of a step in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--memory-of", f"{line.system.name}/{line.mode}"],
        env={**os.environ, **UNPOOLED},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the memory of {line.system.name} could not be had:\n{done.stderr}")
    return StepMemory(*json.loads(done.stdout.splitlines()[-1]))


def print_memory(name: str, setting: Setting) -> None:
    """Print held and step memory of one system, in this process."""
    wanted, mode = name.split("/")
    system = next(each for each in all_systems(setting.size) if each.name == wanted)
    step = setting.make(system, mode)
    for _ in range(2):
        step()
    print(json.dumps(step_memory(step, step.zero, setting.device.type)))


def table(
    lines: Sequence[Line], memory: Sequence[StepMemory | None], setting: Setting, peak: float
) -> str:
    """Write what was found, a line a system."""
    tokens = setting.size.batch_size * setting.size.seq_len
    peers = [line for line in lines if not line.system.is_ours]
    rows = [
        "| system | mode | parameters | tokens/s | of the best peer | utilisation | step memory |"
        " first loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line, used in zip(lines, memory, strict=True):
        ratio = "" if not peers else f"{_ratio(line, peers):.2f}"
        mb = "" if used is None else f"{used.step / 1e6:,.0f} MB"
        rows.append(
            f"| {line.system.name} ({line.system.note}) | {line.mode} | "
            f"{line.step.num_parameters / 1e6:.2f} M | {tokens / line.median:,.0f} | {ratio} | "
            f"{flops(setting.size) / line.median / peak:.0%} | {mb} | {line.first_loss:.3f} |"
        )
    return "\n".join(rows)


def _ratio(line: Line, peers: Sequence[Line]) -> float:
    """Return how much faster it is than the best of the other systems, the median over rounds."""
    best = min(peers, key=lambda peer: peer.median)
    return statistics.median(b / a for a, b in zip(line.seconds, best.seconds, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--clock", choices=CLOCKS, help="by default process, on a GPU device")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="of each system in a round")
    parser.add_argument("--only", nargs="+", help="parts of the names of systems")
    parser.add_argument("--mode", default="all", help="one mode in place of the fastest of all")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(settings.threads)
    setting = Setting(SIZES[settings.size], settings.precision, torch.device(settings.device))
    if settings.memory_of:
        print_memory(settings.memory_of, setting)
        return
    clock = CLOCKS[settings.clock or ("device" if settings.device == "cuda" else "process")]
    lines: list[Line] = []
    for system in all_systems(setting.size):
        if settings.only and not any(part in system.name for part in settings.only):
            continue
        if system.missing:
            print(f"{system.name} is missing: {system.missing}")
            continue
        lines += contenders(system, setting, clock, tries=2, modes=settings.mode)
    peaks = measure(lines, setting, clock, rounds=settings.rounds, steps=settings.steps)
    lines = fastest_modes(lines)
    arguments = [f"--{name}={getattr(settings, name)}" for name in ("size", "precision", "device")]
    memory = [None if settings.no_memory else memory_apart(line, arguments) for line in lines]
    peak = statistics.median(peaks)
    name = torch.cuda.get_device_name() if settings.device == "cuda" else f"{settings.threads} core"
    print(
        f"{settings.size}: {setting.size}\n{settings.precision} on {name}, products at "
        f"{peak / 1e9:,.0f} GFLOP/s, torch {torch.__version__}\n"
    )
    print(table(lines, memory, setting, peak))


if __name__ == "__main__":
    main()
