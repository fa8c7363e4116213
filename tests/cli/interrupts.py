"""What ends a run where a test wants it."""

from lightning import Callback


class BreakAt(Callback):
    """Raise when the validation of a step begins."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_validation_start(self, trainer, pl_module):
        if trainer.global_step == self.step:
            raise InterruptedError(f"at step {self.step}")
