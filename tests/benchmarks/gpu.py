"""How much of a GPU each system uses: 124M to 3B parameters, in the best of its settings.

    python tests/benchmarks/gpu.py --out gpu.jsonl                       # all sizes, all systems
    python tests/benchmarks/gpu.py --out gpu.jsonl --sizes 1.3B --only "ours as Llama" litgpt
    python tests/benchmarks/gpu.py --out /tmp/gpu.jsonl --device cpu --sizes tiny    # a try of it

Sequences of 2048, bf16 over fp32 weights, AdamW, compiled blocks. Rows are doubled until memory
ends or speed no longer grows; ours is also tried with the recomputing of activations that makes
room for more rows. Every trial is a process of its own, so that one that runs out of memory spoils
no other; results are kept, and a search that was interrupted goes on. MFU counts matrix products,
attention as if there were no mask, over the dense peak of the data sheet (of large products, where
that is not known). ``pip install -e '.[peers]' && pip install --no-deps litgpt torchtitan`` brings
the others.
"""

import argparse
import json
import statistics
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402

from pile_lightning.callbacks.throughput import dense_peak  # noqa: E402
from tests.benchmarks.peers import Setting, flops  # noqa: E402
from tests.benchmarks.quality.records import Records  # noqa: E402
from tests.benchmarks.systems import SIZES as SMALL  # noqa: E402
from tests.benchmarks.systems import Size, System, all_systems  # noqa: E402
from tests.benchmarks.systems.clocks import CLOCKS  # noqa: E402
from tests.benchmarks.systems.memory import step_memory  # noqa: E402

SIZES = {
    name: Size(
        num_layers=layers,
        d_model=width,
        vocab_size=50304,
        seq_len=2048,
        batch_size=1,
        head_dim=head_dim,
    )
    for name, (layers, width, head_dim) in {
        "124M": (12, 768, 64),
        "350M": (24, 1024, 64),
        "1.3B": (24, 2048, 128),
        "3B": (32, 2560, 128),
    }.items()
} | {"tiny": replace(SMALL["tiny"], batch_size=1)}

Found = dict[str, Any]


def with_all_modes(system: System) -> System:
    """Add the modes that make room for more rows; eager ones are left out where others are."""
    modes = {**system.modes, **system.roomy_modes}
    if len(modes) > 1:
        modes.pop("eager", None)
    return replace(system, modes=modes)


def trial(size: Size, system: System, mode: str, device: torch.device, *, steps: int) -> Found:
    """Take steps and return seconds and memory of one, and the rate to compare with."""
    setting = Setting(size, "bf16", device)
    step = setting.make(system, mode)
    clock = CLOCKS["device" if device.type == "cuda" else "process"]
    for _ in range(3):  # compiles, and warms up
        step()
    seconds = [clock(step) for _ in range(steps)]
    memory = step_memory(step, step.zero, device.type)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return {
        "seconds": statistics.median(seconds),
        "bytes": memory.held + memory.step,
        "parameters": step.num_parameters,
        "peak": dense_peak(name) or setting.peak(clock),
        "device": name,
    }


class Search:
    """Finds the best setting of a system, a process a trial.

    Args:
        records: What was tried before, and where results go.
        arguments: Of every trial.
        limit: Seconds of a trial.
    """

    def __init__(self, records: Records, arguments: argparse.Namespace) -> None:
        self.records, self.arguments = records, arguments

    def tried(self, size: str, system: str, mode: str, rows: int) -> Found:
        """Return what a trial finds, or why it did not come to anything."""
        key = {"size": size, "system": system, "mode": mode, "rows": rows}
        key |= {"torch": torch.__version__, "device": self.arguments.device}
        found = self.records.find(key)
        if found is None:
            found = self._run(key)
            self.records.add(key, **found)
        told = found.get("failed") or f"{1000 * found['seconds']:,.0f} ms"
        print(f"{size}, {system}, {mode}, {rows} rows: {told}", flush=True)
        return found

    def _run(self, key: dict[str, Any]) -> Found:
        arguments = [f"--device={self.arguments.device}", f"--steps={self.arguments.steps}"]
        command = [sys.executable, __file__, *arguments, "--trial", json.dumps(key)]
        limit = self.arguments.limit
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not done in {limit} s"}
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return {"failed": lines[-1][:200]}
        found: Found = json.loads(done.stdout.splitlines()[-1])
        return found

    def modes(self, size: str, system: System) -> Iterator[tuple[str, int, Found]]:
        """Try rows and modes, and yield what worked."""
        for mode in system.modes:
            if self.arguments.modes and mode not in self.arguments.modes:
                continue
            fastest = 0.0
            rows = 1
            while rows <= self.arguments.most_rows:
                found = self.tried(size, system.name, mode, rows)
                if "failed" in found:
                    break
                yield mode, rows, found
                rate = rows / found["seconds"]
                if rate < 1.02 * fastest:
                    break
                fastest, rows = rate, 2 * rows

    def best(self, size: str, system: System) -> tuple[str, int, Found] | None:
        """Return mode, rows and what was found where most tokens went through a second."""
        found = list(self.modes(size, system))
        return max(found, key=lambda each: each[1] / each[2]["seconds"], default=None)


def row(size: str, system: System, best: tuple[str, int, Found] | None) -> str:
    """Write a line of the table."""
    if best is None:
        return f"| {size} | {system.name} | | | | not yet measured | | |"
    mode, rows, found = best
    whole = replace(SIZES[size], batch_size=rows)
    seconds = found["seconds"]
    return (
        f"| {size} | {system.name} | {found['parameters'] / 1e6:,.2f} M | {mode} | {rows} | "
        f"{rows * whole.seq_len / seconds:,.0f} | {flops(whole) / seconds / found['peak']:.1%} | "
        f"{found['bytes'] / 1e9:.1f} GB |"
    )


def main() -> None:
    """Search, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["124M", "350M", "1.3B", "3B"])
    parser.add_argument("--only", nargs="+", help="parts of the names of systems")
    parser.add_argument("--modes", nargs="+", help="of systems; by default all")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--most_rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="of a trial, of which the median")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds of a trial")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.jsonl"))
    parser.add_argument("--trial", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trial:
        warnings.filterwarnings("ignore")
        wanted = json.loads(arguments.trial)
        size = replace(SIZES[wanted["size"]], batch_size=wanted["rows"])
        systems = map(with_all_modes, all_systems(size))
        system = next(each for each in systems if each.name == wanted["system"])
        device = torch.device(arguments.device)
        print(json.dumps(trial(size, system, wanted["mode"], device, steps=arguments.steps)))
        return
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu --sizes tiny tries the script itself")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    search = Search(Records(arguments.out), arguments)
    lines = []
    for size in arguments.sizes:
        for system in map(with_all_modes, all_systems(SIZES[size])):
            if arguments.only and not any(part in system.name for part in arguments.only):
                continue
            if system.missing:
                print(f"{system.name} is missing: {system.missing}")
                continue
            lines.append(row(size, system, search.best(size, system)))
    print(
        "\n| size | system | parameters | mode | rows | tokens/s | MFU | memory |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
