"""A callback that tells when training ended, before anything is scored, and what a step took."""

import json
import time
from pathlib import Path

from lightning import Callback, Trainer

__all__ = ["StepClock"]


class StepClock(Callback):
    """Write ``clock.json`` into the run's folder after the last step.

    Its ``ended`` is in seconds since the epoch; ``cpu_seconds_a_step`` (of all threads) and
    ``seconds_a_step`` are means over the steps after the first ones, which compile.

    Args:
        warm: The first so many steps; at most half of all.
    """

    def __init__(self, warm: int = 10) -> None:
        self.warm = warm

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Look at the clocks."""
        step, last = trainer.global_step, trainer.max_steps
        warm = min(self.warm, last // 2)
        now = time.time(), time.process_time()
        if step == warm:
            self._warm = now
        elif step == last:
            wall, cpu = ((b - a) / (last - warm) for a, b in zip(self._warm, now, strict=True))
            found = {"ended": now[0], "cpu_seconds_a_step": cpu, "seconds_a_step": wall}
            Path(trainer.default_root_dir, "clock.json").write_text(json.dumps(found))
