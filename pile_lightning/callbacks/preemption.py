"""Leave in good order when the machine is about to be taken away: finish the step, save, exit.

A signal handler here only notes that a signal came. Lightning's own talks to the other ranks from
inside the handler, in the middle of whatever they were saying: signalling all ranks hung it once
and crashed it once. Ranks agree where all of them are anyway, at the end of a step.
"""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from pile_lightning.callbacks.leaving import PREEMPTED, check_exit_code, leave_after_the_first
from pile_lightning.callbacks.saving import why_not_saved

__all__ = ["Preempted", "Preemption", "SavesNow"]


class Preempted(SystemExit):
    """Ends the process after it was told to leave."""


@runtime_checkable
class SavesNow(Protocol):
    """A callback that can be asked for a checkpoint to go on from."""

    path: str
    """Where to."""

    def save_now(self, trainer: Trainer) -> None:
        """Save one at once, on all ranks, unless this step is saved."""


class Preemption(Checkpoint):
    """Finish the step, save and exit with a code of its own when a signal says so.

    It may come to one rank or to all, once or often, in a step, a save or a validation; a
    validation is broken off, and done again when the run goes on. Before training starts there is
    nothing to save, and the process exits at once.

    Args:
        signals: Names of the signals to heed.
        exit_code: Of every rank, so that a script can tell that the run is to be queued again.
        every_n_steps: Optimizer steps between two agreements of several ranks; one rank needs none.

    Raises:
        ValueError: For a signal that there is not or that cannot be heeded, or a code that a shell
            takes for something else.

    Example:
        >>> Preemption(signals=["SIGTERM"]).exit_code
        85
    """

    # a kind of Checkpoint, because Lightning runs those after all others: what they count is saved

    def __init__(
        self,
        signals: list[str] | None = None,
        exit_code: int = PREEMPTED,
        every_n_steps: int = 1,
    ) -> None:
        names = ["SIGTERM", "SIGUSR1"] if signals is None else signals
        self.signals = [_signal(name) for name in names]
        if every_n_steps < 1:
            raise ValueError(
                f"every_n_steps={every_n_steps}: ranks agree every so many steps; choose at least 1"
            )
        self.exit_code = check_exit_code(exit_code)
        self.every_n_steps = every_n_steps
        self._received: str | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._listening = False
        self._may_wait = False
        self._shared_val_batches = 0.0
        self._watched_data: Any = None

    # -- signals ----------------------------------------------------------------------------------

    def listen(self) -> None:
        """Heed the signals from now on; until ``fit`` has set up, one of them exits at once."""
        if threading.current_thread() is not threading.main_thread():
            rank_zero_warn(
                "preemption: signals reach the main thread alone, and fit was called in another; "
                "this run will not be saved when it is told to leave"
            )
            return
        if not self._listening:
            self._previous, self._listening = {}, True
        for number in self.signals:
            previous = signal.getsignal(number)
            if previous == self._handle:
                continue
            owner = getattr(previous, "__self__", None)
            if isinstance(owner, Preemption):  # of an earlier fit
                previous = owner._previous.get(number)
            self._previous.setdefault(number, previous)
            signal.signal(number, self._handle)
            # a system call that a library makes goes on instead of failing
            signal.siginterrupt(number, False)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal, and hand it on to whoever heeded it before."""
        previous = self._previous.get(signal.Signals(number))
        if not self._listening:  # after a fit that failed Lightning puts this back
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
            signal.raise_signal(number)
            return
        self._received = signal.Signals(number).name
        if callable(previous):
            previous(number, frame)
        if not self._may_wait:
            raise Preempted(self.exit_code)

    def _release_data(self) -> None:
        if self._watched_data is not None:
            del self._watched_data.train_dataloader  # shows the method of its class again
            self._watched_data = None

    def _stop_listening(self) -> None:
        self._release_data()
        if not self._listening:
            return
        self._listening = self._may_wait = False
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL if previous is None else previous)

    # -- the run ----------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to wait for the end of a step.

        Raises:
            ValueError: Where no callback saves checkpoints.
        """
        if stage != "fit":
            return
        if not any(isinstance(c, SavesNow) for c in trainer.checkpoint_callbacks):
            raise ValueError(
                "preemption has nothing to save with; add LastCheckpoint to the trainer's callbacks"
            )
        self._received, self._may_wait = None, True
        self.listen()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Arrange to be asked again before the first batch is made.

        Lightning puts its own handler first between this hook and the next, and a signal to one of
        several ranks in the seconds that the first batch may take would hang them all.
        """
        data = trainer.datamodule
        if data is not None and self._listening:
            load = data.train_dataloader

            def listen_and_load() -> Any:
                self.listen()
                return load()

            data.train_dataloader = listen_and_load
            self._watched_data = data

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals back from Lightning."""
        self.listen()
        self._release_data()
        if self._agreed(trainer):
            self._leave(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save and leave between two steps, where a signal has come to any rank."""
        if batch_idx % trainer.accumulate_grad_batches:
            return
        if trainer.world_size > 1 and trainer.global_step % self.every_n_steps:
            return
        if self._agreed(trainer):
            self._save(trainer)
            self._leave(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave, or see how many batches all ranks have, between which they may agree."""
        if trainer.state.fn != "fit":
            return
        self._val_batches = 0
        if trainer.world_size > 1:
            own = torch.tensor(float(sum(trainer.num_val_batches)))
            own = own.to(trainer.strategy.root_device)
            least = float(trainer.strategy.reduce(own, reduce_op="min"))
            self._shared_val_batches = least if least < float("inf") else 0
        if self._agreed(trainer):
            self._break_off(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Leave between two batches: the training step before is complete."""
        if trainer.state.fn != "fit":
            return
        self._val_batches += 1
        if trainer.world_size > 1 and self._val_batches > self._shared_val_batches:
            return
        if self._agreed(trainer):
            self._break_off(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop listening, unless the process is about to leave anyhow: then nothing hurries it."""
        if not isinstance(exception, Preempted):
            self._stop_listening()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop listening."""
        if stage == "fit":
            self._stop_listening()

    # -- leaving ----------------------------------------------------------------------------------

    def _agreed(self, trainer: Trainer) -> bool:
        """Say whether any rank was told to leave, the same on all."""
        told = self._received is not None
        if trainer.world_size == 1:
            return told
        return bool(trainer.strategy.reduce_boolean_decision(told, all=False))

    @staticmethod
    def _save(trainer: Trainer) -> None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, SavesNow):
                callback.save_now(trainer)
                return

    def _break_off(self, trainer: Trainer) -> None:
        """Save in a validation, so that the run that goes on begins with the whole of it."""
        if not trainer.sanity_checking and trainer.global_step > 0:
            self._save(trainer)
        self._leave(trainer)

    def _leave(self, trainer: Trainer) -> None:
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        paths = [c.path for c in trainer.checkpoint_callbacks if isinstance(c, SavesNow)]
        problems = [why_not_saved(trainer, path, wait=True) for path in paths]
        saved = "which is saved" if problems[0] is None else f"which is not saved: {problems[0]}"
        self._tell(trainer.global_step, saved, folder)
        leave_after_the_first(trainer)
        raise Preempted(self.exit_code)

    @rank_zero_only
    def _tell(self, step: int, saved: str, folder: Path) -> None:
        why = self._received or "A signal to another rank"
        print(f"\n{why}: left after step {step}, {saved} (exit code {self.exit_code}).")
        if (folder / "config.yaml").is_file():
            print(f"Next:\n  python train.py fit --config {folder}/config.yaml --ckpt_path auto")


def _signal(name: str) -> signal.Signals:
    known = {s.name: s for s in signal.Signals} if isinstance(name, str) else {}
    if name not in known or name in ("SIGKILL", "SIGSTOP"):
        raise ValueError(
            f"signals has {name!r}, which is no signal that can be heeded; choose among SIGTERM, "
            f"SIGUSR1, SIGUSR2, SIGHUP and the like"
        )
    return known[name]
