"""Runs that are killed at any moment: of each, what is on the disk by then.

A kill leaves nothing but files. So one run is enough to know what each kill would have left: its
folder is copied at every boundary of a hook, a save or a row at which a file has changed.
"""

import math
import os
import shutil
import sys
import traceback
import warnings

import torch
from lightning import Callback

from pile_lightning.callbacks import MetricsCsv, read_metrics
from pile_lightning.checkpoint import AtomicCheckpointIO, load_whole
from pile_lightning.cli import train

TIMES = ("throughput/tokens_per_second", "throughput/tflops", "throughput/mfu")


def in_a_process(function, said):
    """Run a function in a fork of this process; return how it ended. ``said`` is what it prints."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        with open(said, "w", buffering=1) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr = file
            try:
                function()
                code = 0
            except SystemExit as leaving:
                code = leaving.code or 0
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(code)


def fit(folder, arguments, *, prepare=None):
    """Run ``train.py fit`` in ``folder`` as a process; return its code and what it printed."""

    def run():
        os.chdir(folder)
        warnings.simplefilter("default")
        if prepare is not None:
            prepare()
        train(["fit", *arguments])

    said = folder / "said.txt"
    code = in_a_process(run, said)
    return code, said.read_text()


def at_each_boundary(tick):
    """Call ``tick(label)`` before and after each hook of a callback, each save and each row."""
    kinds = [Callback]
    for kind in kinds:
        kinds += kind.__subclasses__()
    for kind in dict.fromkeys(kinds):
        if kind.__module__.startswith("pile_lightning"):
            for name, hook in list(vars(kind).items()):
                if name.startswith("on_") and callable(hook):
                    setattr(kind, name, _wrapped(hook, f"{kind.__name__}.{name}", tick))
    for kind, name in (
        (AtomicCheckpointIO, "save_checkpoint"),
        (AtomicCheckpointIO, "save_shards"),
        (AtomicCheckpointIO, "remove_checkpoint"),
        (MetricsCsv, "log_metrics"),
    ):
        setattr(kind, name, _wrapped(getattr(kind, name), f"{kind.__name__}.{name}", tick))


def _wrapped(hook, label, tick):
    def around(*arguments, **settings):
        tick(f"before {label}")
        result = hook(*arguments, **settings)
        tick(f"after {label}")
        return result

    return around


class Copies:
    """Copies of a run's folder, one for each state that it was in."""

    def __init__(self, run, to):
        self.run, self.to = run, to
        self.before = None
        self.labels = []

    def __call__(self, label):
        files = [path for path in sorted(self.run.rglob("*")) if path.is_file()]
        state = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in files]
        if files and state != self.before:
            self.before = state
            copy = self.to / f"{len(self.labels):03} {label}"
            shutil.copytree(self.run, copy / "run")
            self.labels.append(label)


def left_by(folder, said):
    """Return all that a run has left, but for times."""
    run = folder / "run"
    files = {str(path.relative_to(folder)) for path in run.rglob("*") if path.is_file()}
    rows = [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in read_metrics(run / "metrics.csv")
    ]
    return {
        "files": files,
        "rows": rows,
        "samples": {path.name: path.read_text() for path in (run / "samples").glob("*")},
        "checkpoints": {
            path.name: load_whole(path) for path in (run / "checkpoints").glob("*.ckpt")
        },
        "table": closing_table(said)[1:],  # the first line has times
    }


def closing_table(said):
    """Return the lines of the closing table."""
    lines = said.splitlines()
    firsts = ("Trained ", "The run has taken ")
    starts = [number for number, line in enumerate(lines) if line.startswith(firsts)]
    return lines[starts[-1] :] if starts else []


def differences(left, right, place=""):
    """Yield where two plain structures differ; nan is nan."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in [*left, *(key for key in right if key not in left)]:
            if key not in left or key not in right:
                missing = "the second" if key not in right else "the first"
                yield f"{place}/{key} is missing in {missing}"
            else:
                yield from differences(left[key], right[key], f"{place}/{key}")
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) != len(right):
            yield f"{place} has {len(left)} and {len(right)}: {left} {right}"
        for number, pair in enumerate(zip(left, right, strict=False)):
            yield from differences(*pair, f"{place}/{number}")
    elif isinstance(left, torch.Tensor):
        if not torch.equal(left, right):
            yield f"{place}: tensors differ"
    elif isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        if not math.isnan(right):
            yield f"{place}: {left} {right}"
    elif left != right:
        yield f"{place}: {left} {right}"
