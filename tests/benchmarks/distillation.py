"""Whether a small member learns from a large one: one that trains beside it, one trained before.

    python tests/benchmarks/distillation.py

Teacher, student and the student's model untaught train in one environment on the standard library,
and are scored on held-out text. A second environment trains the same student with that teacher,
now frozen. For several seeds; all students of a seed begin with the same weights and read the same
rows, and differ in the teacher alone.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def member(width: int, layers: int) -> dict[str, Any]:
    """Return a member."""
    return {
        "class_path": "pile_lightning.CausalLM",
        "init_args": {"network": {"d_model": width, "num_layers": layers}},
    }


def scores(
    members: dict[str, Any], teaching: dict[str, Any], folder: Path, *, seed: int, steps: int
) -> dict[str, float]:
    """Train an environment and return each member's held-out bits per byte."""
    teaching = {"teacher": "teacher", "students": ["student"], **teaching}
    settings = {
        "seed_everything": seed,
        "data": {
            "class_path": "pile_lightning.TextData",
            "init_args": {
                "sources": "stdlib",
                "tokenizer": "bpe:4096",
                "seq_len": 128,
                "batch_size": 8,
            },
        },
        "model": {
            "class_path": "pile_lightning.Environment",
            "init_args": {
                "members": members,
                "coupling": [{"class_path": "pile_lightning.Distillation", "init_args": teaching}],
            },
        },
        "trainer": {
            "default_root_dir": str(folder),
            "max_steps": steps,
            "val_check_interval": steps,
        },
    }
    config = folder.with_suffix(".yaml")
    config.write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, REPOSITORY / "train.py", "fit", "--config", config],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a run failed:\n{done.stderr[-2000:]}")
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        row = [line for line in csv.DictReader(file) if line.get("val/student/bits_per_byte")][-1]
    return {name: float(row[f"val/{name}/bits_per_byte"]) for name in members}


def told(effects: Sequence[float]) -> str:
    """Say a mean effect and its spread."""
    return f"{statistics.mean(effects):+.4f} ({min(effects):+.4f} to {max(effects):+.4f})"


def main() -> None:
    """Print a line a seed, and the effects."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=int, nargs=2, default=[256, 4], help="width, layers")
    parser.add_argument("--student", type=int, nargs=2, default=[128, 2], help="width, layers")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--begin", type=float, default=0.5, help="of teaching beside")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    teaching = {"weight": arguments.weight, "temperature": arguments.temperature}
    beside: list[float] = []
    frozen: list[float] = []
    print(
        "| seed | teacher | alone | taught beside | taught by it, frozen |\n|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as temporary:
        for seed in arguments.seeds:
            folder = Path(temporary, f"beside-{seed}")
            small = member(*arguments.student)
            found = scores(
                {"teacher": member(*arguments.teacher), "student": small, "alone": small},
                {**teaching, "begin": arguments.begin},
                folder,
                seed=seed,
                steps=arguments.steps,
            )
            trained = {"weights": str(folder / "members/teacher"), "frozen": True}
            after = scores(
                {"teacher": trained, "student": small},
                teaching,
                Path(temporary, f"frozen-{seed}"),
                seed=seed,
                steps=arguments.steps,
            )
            beside.append(found["student"] - found["alone"])
            frozen.append(after["student"] - found["alone"])
            cells = [*(found[n] for n in ("teacher", "alone", "student")), after["student"]]
            print(f"| {seed} | {' | '.join(f'{cell:.4f}' for cell in cells)} |", flush=True)
    print(f"\nBits per byte by a teacher beside: {told(beside)}; frozen: {told(frozen)}")


if __name__ == "__main__":
    main()
