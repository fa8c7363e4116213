"""What a run is doing, told to whoever wants to disturb it."""

import os
import time
from pathlib import Path

from lightning import Callback


class Probe(Callback):
    """Note what each rank is doing in a file, and take long enough over it to be met at it.

    Args:
        seconds: That a step takes at least.
        long: That a save, or a batch of a validation, takes at least.
    """

    def __init__(self, seconds: float = 0.02, long: float = 0.1) -> None:
        self.seconds, self.long = seconds, long

    def note(self, trainer, what, wait=0.0):
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"events-{trainer.global_rank}").open("a") as file:
            file.write(f"{os.getpid()} {what} {trainer.global_step}\n")
        time.sleep(wait)

    def on_train_start(self, trainer, pl_module):
        self.note(trainer, "start")

    def on_train_batch_start(self, trainer, *_):
        time.sleep(self.seconds)

    def on_train_batch_end(self, trainer, *_):
        self.note(trainer, "step")

    def on_save_checkpoint(self, trainer, *_):
        self.note(trainer, "save", self.long)

    def on_validation_batch_start(self, trainer, *_):
        self.note(trainer, "validation", self.long)


def events(folder, rank=0):
    """Return what a rank did, in all runs: process, event and step."""
    path = Path(folder, f"events-{rank}")
    if not path.is_file():
        return []
    text = path.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [(int(pid), what, int(step)) for pid, what, step in map(str.split, lines)]
