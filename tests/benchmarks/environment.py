"""Several models in one environment beside the same models in runs of their own.

    python tests/benchmarks/environment.py
    python tests/benchmarks/environment.py --width 128 --layers 4 --seq 128
    python tests/benchmarks/environment.py --engines sequential --threads 1 --ranks 1 2

Whole processes on the standard library's text, prepared before: start-up, data, training, the score
at the end and checkpoints are all in the clock. Separate runs come one after another, each with all
threads that the environment has. Memory is the largest resident size of a process; for the separate
runs it is the sum, as if they ran at the same time, and of several ranks it is that of the first.
Each rank has the threads that one process has, as it would have a device of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

REPOSITORY = Path(__file__).parents[2]


class Cost(NamedTuple):
    """Of a process."""

    seconds: float
    megabytes: float


def member(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return a member but for its seed and rate."""
    network = {
        "d_model": arguments.width,
        "num_layers": arguments.layers,
        "attention": {"num_heads": max(1, arguments.width // 64)},
    }
    return {
        "class_path": "pile_lightning.CausalLM",
        "init_args": {"network": network, "compile": arguments.compile},
    }


def config(
    model: dict[str, Any], folder: Path, arguments: argparse.Namespace, *, ranks: int = 1
) -> dict[str, Any]:
    """Return the config of a run."""
    spread = {"strategy": "spread", "devices": ranks} if ranks > 1 else {}
    return {
        "seed_everything": 0,
        "data": {
            "class_path": "pile_lightning.TextData",
            "init_args": {
                "sources": "stdlib",
                "tokenizer": "bpe:4096",
                "seq_len": arguments.seq,
                "batch_size": arguments.batch,
            },
        },
        "model": model,
        "trainer": {
            "default_root_dir": str(folder),
            "max_steps": arguments.steps,
            "val_check_interval": arguments.steps,
            "log_every_n_steps": 50,
            "limit_val_batches": 16,
            "enable_progress_bar": False,
            **spread,
        },
    }


def run(settings: dict[str, Any], folder: Path, threads: int) -> Cost:
    """Run a config in a process of its own."""
    path = folder / "asked.yaml"
    folder.mkdir(parents=True)
    path.write_text(json.dumps(settings))
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / "train.py", "fit", "--config", path],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "errors.txt").open("w"),
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    if status:
        raise RuntimeError((folder / "errors.txt").read_text())
    return Cost(seconds, used.ru_maxrss / 1000)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seq", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1])
    parser.add_argument("--engines", nargs="+", default=["sequential", "stacked", "auto"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        one = member(arguments)
        prepare = argparse.Namespace(**{**vars(arguments), "steps": 1})
        run(config(one, root / "prepared", prepare), root / "prepared", arguments.threads)
        alone = [
            run(
                config(one, root / f"alone-{n}", arguments) | {"seed_everything": n},
                root / f"alone-{n}",
                arguments.threads,
            )
            for n in tqdm(range(arguments.members), desc="separate runs", leave=False)
        ]
        seconds, memory = (sum(cost) for cost in zip(*alone, strict=True))
        print(
            f"{arguments.members} members of width {arguments.width}, {arguments.layers} layers, "
            f"{arguments.batch} x {arguments.seq} tokens, {arguments.steps} steps, "
            f"{arguments.threads} threads\n\n| | seconds | faster | memory |\n|---|---|---|---|\n"
            f"| separate runs | {seconds:.1f} | 1 | {memory:,.0f} MB |",
            flush=True,
        )
        sweep = {"seed": list(range(arguments.members))}
        for engine, ranks in product(arguments.engines, arguments.ranks):
            settings = {"base": one, "sweep": sweep, "engine": engine}
            model = {"class_path": "pile_lightning.Environment", "init_args": settings}
            folder = root / f"{engine}-{ranks}"
            cost = run(config(model, folder, arguments, ranks=ranks), folder, arguments.threads)
            over = f", {ranks} ranks" if ranks > 1 else ""
            print(
                f"| one environment, {engine}{over} | {cost.seconds:.1f} "
                f"| {seconds / cost.seconds:.2f} | {cost.megabytes:,.0f} MB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
