"""Loss spikes: back to the last good checkpoint, and past the rows that led to the spike.

A trainer cannot be wound back while it runs. So the checkpoint is given the position in the data
that training has reached, and the process leaves: whatever goes on from the checkpoint, as after
any other stop, has the old weights and does not see the rows in between again.
"""

import math
import os
from collections import deque
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

from pile_lightning.callbacks.history import checkpoint_age
from pile_lightning.callbacks.leaving import REWOUND, check_exit_code, leave_after_the_first

__all__ = ["RewindSpikes", "Rewound"]


class Rewound(SystemExit):
    """Ends the process after the last checkpoint was given a position further on in the data.

    Args:
        code: With which to exit.
        alone: Whether there are no other processes that would have to begin again.
    """

    def __init__(self, code: int, *, alone: bool) -> None:
        super().__init__(code)
        self.alone = alone


class RewindSpikes(Callback):
    """Rewind a loss spike: off by default.

    A step's loss is compared with those of the ``window`` steps before it, before that step can be
    saved. It is read each step, so a GPU is waited for. Under ``train.py`` one process goes on by
    itself; several ranks exit with ``exit_code``, and their launcher starts them again.

    Args:
        deviations: A spike is so many standard deviations above the mean; null for never.
        window: Steps that mean and deviation are taken over; the first so many are not judged.
        max_rewinds: Rewinds of a run; after these it goes on in spite of spikes, and says so.
        exit_code: Of every rank that is to be started again.

    Raises:
        ValueError: For a number out of its range.
    """

    def __init__(
        self,
        deviations: float | None = None,
        window: int = 100,
        max_rewinds: int = 10,
        exit_code: int = REWOUND,
    ) -> None:
        if deviations is not None and not deviations > 0:
            raise ValueError(
                f"deviations={deviations}: a spike is so many standard deviations above the mean; "
                f"choose more than 0 (6 is usual), or null for never"
            )
        if window < 2 or max_rewinds < 1:
            raise ValueError(
                f"window={window} and max_rewinds={max_rewinds}: a deviation takes at least 2 "
                f"steps, and a run is rewound at least once; choose numbers from there"
            )
        self.deviations = deviations
        self.window = window
        self.max_rewinds = max_rewinds
        self.exit_code = check_exit_code(exit_code)
        self.rewinds = 0
        self._losses: deque[float] = deque(maxlen=window)
        self._step: Tensor | float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the losses to compare with, and the rewinds so far."""
        return {"rewinds": self.rewinds, "losses": list(self._losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing."""
        self.rewinds = state_dict["rewinds"]
        self._losses.extend(state_dict["losses"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with no step half done."""
        self._step = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Judge a finished step.

        Raises:
            Rewound: For a spike that was wound back.
        """
        if self.deviations is None or outputs is None:
            return
        # a sum over micro-batches and ranks: it is compared with its like alone
        self._step = self._step + outputs["loss"]
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        loss, self._step = torch.as_tensor(self._step), 0.0
        if trainer.world_size > 1:
            loss = trainer.strategy.reduce(loss.clone(), reduce_op="sum")
        value = float(loss)
        if not math.isfinite(value):
            return  # left out by another callback, and no measure of anything
        if not self._is_spike(value):
            self._losses.append(value)
        elif self.rewinds >= self.max_rewinds:
            self._go_on(trainer, f"{self.rewinds} rewinds were all that spikes.max_rewinds allows")
        else:
            self._rewind(trainer)

    def _is_spike(self, value: float) -> bool:
        if len(self._losses) < self.window:
            return False
        assert self.deviations is not None
        mean = sum(self._losses) / self.window
        variance = sum((loss - mean) ** 2 for loss in self._losses) / (self.window - 1)
        return value > mean + self.deviations * math.sqrt(variance)

    def _rewind(self, trainer: Trainer) -> None:
        path = _newest_checkpoint(trainer)
        data = trainer.datamodule
        if path is None or data is None:
            missing = "checkpoint yet" if path is None else "data module"
            self._go_on(trainer, f"there is no {missing} to go back with")
            return
        name = type(data).__qualname__
        position = data.state_dict()  # on all ranks: it may gather
        step = self._write(trainer, path, name, position) if trainer.is_global_zero else None
        step = trainer.strategy.broadcast(step)
        self._tell(trainer.global_step, step, path)
        trainer.strategy.barrier("rewound")
        leave_after_the_first(trainer)
        raise Rewound(self.exit_code, alone=trainer.world_size == 1)

    def _write(self, trainer: Trainer, path: Path, name: str, position: dict[str, Any]) -> int:
        files = trainer.strategy.checkpoint_io
        checkpoint = files.load_checkpoint(path, weights_only=True)
        checkpoint[name] = position
        own = checkpoint["callbacks"].setdefault(self.state_key, self.state_dict())
        own["rewinds"] = self.rewinds + 1
        files.save_checkpoint(checkpoint, path)
        return int(checkpoint["global_step"])

    def _go_on(self, trainer: Trainer, why: str) -> None:
        rank_zero_warn(f"the loss spikes at step {trainer.global_step}; training goes on: {why}")
        self._losses.clear()  # or the level that it goes on at would be one spike after another

    @rank_zero_only
    def _tell(self, step: int, back: int, path: Path) -> None:
        print(
            f"\nThe loss spikes at step {step}: back to step {back} ({path}), and on with the rows "
            f"after the spike (exit code {self.exit_code})."
        )


def _newest_checkpoint(trainer: Trainer) -> Path | None:
    """Return the checkpoint that the run would go on from, or None, the same on all ranks."""
    paths = [getattr(callback, "path", None) for callback in trainer.checkpoint_callbacks]
    found = [Path(path) for path in paths if path is not None and os.path.exists(path)]
    newest = max(found, key=lambda path: checkpoint_age(trainer, path) or (0, 0.0), default=None)
    path: Path | None = trainer.strategy.broadcast(newest)
    return path
