"""Whether a small member learns more beside a large one that teaches it.

    python tests/benchmarks/distillation.py

Teacher, student and the student's model untaught train in one environment on the standard library,
for several seeds, and are scored on held-out text. The pair has one seed and differs in the teacher
alone.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def members(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the three members."""
    return {
        name: {
            "class_path": "pile_lightning.CausalLM",
            "init_args": {"network": {"d_model": width, "num_layers": arguments.layers}},
        }
        for name, width in {
            "teacher": arguments.teacher,
            "student": arguments.student,
            "alone": arguments.student,
        }.items()
    }


def scores(seed: int, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Train with one seed and return each member's held-out bits per byte."""
    taught = {"teacher": "teacher", "students": ["student"]}
    taught |= {"weight": arguments.weight, "temperature": arguments.temperature}
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
                "members": members(arguments),
                "coupling": [{"class_path": "pile_lightning.Distillation", "init_args": taught}],
            },
        },
        "trainer": {
            "default_root_dir": str(folder),
            "max_steps": arguments.steps,
            "val_check_interval": arguments.steps,
        },
    }
    config = folder.with_suffix(".yaml")
    config.write_text(json.dumps(settings))
    subprocess.run(
        [sys.executable, REPOSITORY / "train.py", "fit", "--config", config],
        stdout=subprocess.DEVNULL,
        env=os.environ,
        check=True,
    )
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        row = [line for line in csv.DictReader(file) if line.get("val/alone/bits_per_byte")][-1]
    return {name: float(row[f"val/{name}/bits_per_byte"]) for name in members(arguments)}


def main() -> None:
    """Print a line a seed, and the effect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=int, default=256, help="its width")
    parser.add_argument("--student", type=int, default=96, help="its width")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--weight", type=float, default=0.5)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    effects = []
    print("| seed | teacher | student | alone | effect |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for seed in arguments.seeds:
            found = scores(seed, Path(temporary, f"seed-{seed}"), arguments)
            effects.append(found["student"] - found["alone"])
            cells = " | ".join(f"{found[name]:.4f}" for name in ("teacher", "student", "alone"))
            print(f"| {seed} | {cells} | {effects[-1]:+.4f} |", flush=True)
    spread = f" (least {min(effects):+.4f}, most {max(effects):+.4f})"
    print(f"\nBits per byte by teaching: {statistics.mean(effects):+.4f}{spread}")


if __name__ == "__main__":
    main()
