"""What the checks for preemption and faults cost a step with one rank.

    python -m tests.benchmarks.fault_checks

In one run, on one core, every second step has them and the others do not, so that whatever else the
machine does meets both alike; the clock is the process's CPU time, and the median step is shown.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from pile_lightning.callbacks import LastCheckpoint, Preemption, SkipNonFinite, Watchdog
from tests.benchmarks.trainer_overhead import SIZES, WARM, Endless, make_batch, make_model


class Nothing(Callback):
    """Show what Lightning takes to ask a callback that has nothing to do."""


class Switch(Checkpoint):
    """Take callbacks away from every second step, and time both kinds.

    It is a Checkpoint because those come last in a step.

    Args:
        watched: The callbacks.
    """

    def __init__(self, watched: list[Callback]) -> None:
        self.watched = watched
        self.on = True
        self.milliseconds: dict[bool, list[float]] = {True: [], False: []}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.all = trainer.callbacks
        self.others = [c for c in self.all if c not in self.watched]
        self.since = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Read the clock, and switch."""
        now = time.process_time()
        self.milliseconds[self.on].append(1000 * (now - self.since))
        self.on = not self.on
        trainer.callbacks = self.all if self.on else self.others
        self.since = time.process_time()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give all back."""
        trainer.callbacks = self.all


def medians(size: str, steps: int, watched: list[Callback]) -> tuple[float, float]:
    """Return the median milliseconds of a step without and with callbacks."""
    config, rows = SIZES[size]
    switch = Switch(watched)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            max_steps=steps,
            logger=False,
            log_every_n_steps=10**9,
            callbacks=[LastCheckpoint(every_n_steps=10**9), *watched, switch],
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(make_model(config), Endless(make_batch(rows)))
    without, with_ = (statistics.median(switch.milliseconds[on][WARM:]) for on in (False, True))
    return without, with_


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000, help="of the small size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(f"{'step':<14}{'check':<22}{'without':>10}{'with':>10}{'cost':>10}   ms, median")
    for size in SIZES:
        steps = arguments.steps if "5 ms" in size else arguments.steps // 20
        for name, watched in {
            "a callback's nothing": [Nothing()],
            "preemption": [Preemption()],
            "non_finite": [SkipNonFinite()],
            "watchdog": [Watchdog()],
            "all three": [SkipNonFinite(), Watchdog(), Preemption()],
        }.items():
            without, with_ = medians(size, steps, watched)
            print(f"{size:<14}{name:<22}{without:10.3f}{with_:10.3f}{with_ - without:10.3f}")


if __name__ == "__main__":
    main()
