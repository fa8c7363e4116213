"""Environments of seconds, for tests to run."""

import csv
import json
import os
import subprocess
import sys

import torch

from pile_lightning.callbacks import read_metrics
from tests.conftest import REPOSITORY


def tiny_run(corpus):
    """Return what makes any run of an environment one of seconds."""
    return [
        f"--data.sources={corpus}",
        "--data.tokenizer=byte",
        "--data.seq_len=64",
        "--data.val_stride=64",
        "--data.val_fraction=0.2",
        "--trainer.log_every_n_steps=2",
        "--trainer.limit_val_batches=3",
        "--trainer.default_root_dir=run",
        "--trainer.precision=32-true",
        "--samples.max_new_tokens=8",
    ]


def init_args(width=32, **more):
    """Return the settings of a tiny model."""
    return {"network": {"d_model": width, "num_layers": 1}, **more}


def sweep_of(**fields):
    """Return arguments of a sweep of a tiny model."""
    base = {"class_path": "pile_lightning.CausalLM", "init_args": init_args()}
    return [
        "--model=pile_lightning.Environment",
        f"--model.base={json.dumps(base)}",
        f"--model.sweep={json.dumps(fields)}",
    ]


def write(run, rows):
    """Write the metrics of a run."""
    columns = dict.fromkeys(name for row in rows for name in row)
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def rewrite(run, change):
    """Change each row of the metrics of a run."""
    write(run, [change(row) for row in read_metrics(run / "metrics.csv")])


def state_of(path):
    """Return the weights in an environment's checkpoint, and how its members fare."""
    state = torch.load(path, weights_only=True)
    return state["state_dict"], state["environment"]["members"]


def fit_on_ranks(ranks, *arguments, cwd, cache):
    """Train in a process of its own, or in two that talk over gloo."""
    done = subprocess.run(
        [
            sys.executable,
            str(REPOSITORY / "train.py"),
            "fit",
            *arguments,
            "--trainer.accelerator=cpu",
            f"--trainer.devices={ranks}",
            f"--trainer.strategy={'ddp' if ranks > 1 else 'auto'}",
        ],
        cwd=cwd,
        env={**os.environ, "PILE_CACHE": str(cache), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
