"""Steps whose loss or gradients are not finite: left out on all ranks alike, counted, kept.

Without gradients an optimizer leaves a parameter, its moments and its count of steps alone, so a
step is left out by dropping all gradients before it. That has to be known before the step: on a GPU
the process waits there for the backward pass, which it otherwise runs ahead of.
"""

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from pile_lightning.callbacks.side_files import SideFiles
from pile_lightning.optim import NonFiniteGradients
from pile_lightning.whole_file import write_file

__all__ = ["SkipNonFinite"]


@runtime_checkable
class SkipsByMember(Protocol):
    """A module of several models, which leaves out the steps of each of them by itself."""

    def skip_at_most(self, in_a_row: int) -> None:
        """Stop a member after so many skipped steps in a row."""


class SkipNonFinite(Callback):
    """Skip a step with a non-finite loss or gradient; stop where too many follow one another.

    Weights and the optimizer's state stay as they were; the schedule and the data go on. The count
    is logged as ``train/skipped_steps`` from the first one on. With ``16-mixed`` precision the
    gradient scaler does it, and this does nothing. A module of several models skips the steps of
    each by itself, and is told how many in a row stop it.

    Args:
        max_in_a_row: Skipped steps in a row at which the run stops. Their batches are then in
            ``non_finite/`` in the run's folder, a line a row, with its text.

    Raises:
        ValueError: For a number below 1.
    """

    def __init__(self, max_in_a_row: int = 10) -> None:
        if max_in_a_row < 1:
            raise ValueError(
                f"max_in_a_row={max_in_a_row}: the run stops after so many skipped steps in a row; "
                f"choose at least 1"
            )
        self.max_in_a_row = max_in_a_row
        self.skipped_steps = 0
        self._this_step: list[_MicroBatch] = []
        self._in_a_row: list[list[_MicroBatch]] = []
        self._batch: Any = None

    def state_dict(self) -> dict[str, Any]:
        """Return the count."""
        return {"skipped_steps": self.skipped_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped_steps = state_dict["skipped_steps"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with a clean row."""
        self._active = trainer.precision != "16-mixed"
        if isinstance(pl_module, SkipsByMember):
            pl_module.skip_at_most(self.max_in_a_row)
            self._active = False
        self._this_step, self._in_a_row = [], []
        groups = [group for each in trainer.optimizers for group in each.param_groups]
        self._gradients = NonFiniteGradients(p for group in groups for p in group["params"])

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Hold the batch until its step is known to be good."""
        self._batch = batch

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Hold the loss."""
        if self._active:
            self._this_step.append(_MicroBatch(self._batch, loss.detach()))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Drop the gradients where anything is not finite on any rank.

        Raises:
            FloatingPointError: After too many steps in a row.
        """
        step, self._this_step = self._this_step, []
        if not self._active:
            return
        finite = not self._gradients.found() and all(math.isfinite(each.loss) for each in step)
        if trainer.world_size > 1:  # ranks of a sharded model hold other gradients
            finite = trainer.strategy.reduce_boolean_decision(finite, all=True)
        if finite:
            self._in_a_row.clear()
            return
        self._gradients.drop()
        self.skipped_steps += 1
        self._in_a_row.append(step)
        rank_zero_warn(
            f"step {trainer.global_step + 1} has a loss or gradient that is not finite: skipped "
            f"({len(self._in_a_row)} in a row, {self.skipped_steps} in all)"
        )
        if len(self._in_a_row) >= self.max_in_a_row:
            self._stop(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the count."""
        if not self.skipped_steps or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step % trainer.log_every_n_steps == 0:
            pl_module.log("train/skipped_steps", float(self.skipped_steps))

    def _stop(self, trainer: Trainer) -> None:
        folder = Path(trainer.log_dir or trainer.default_root_dir, "non_finite")
        codec = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        last, files = trainer.global_step + 1, SideFiles()
        for step, batches in enumerate(self._in_a_row, start=last + 1 - len(self._in_a_row)):
            path = folder / f"step-{step:06d}-rank-{trainer.global_rank}.jsonl"
            lines = [json.dumps(line) for batch in batches for line in _lines(batch, codec)]
            files.write(path, partial(write_file, path, "".join(f"{line}\n" for line in lines)))
        raise FloatingPointError(
            f"non_finite.max_in_a_row={self.max_in_a_row} steps in a row, up to step {last}, had a "
            f"loss or gradient that is not finite, and the weights are those of step "
            f"{last - len(self._in_a_row)}; look at the batches in {folder}, lower the learning "
            f"rate, or clip gradients"
        )


class _MicroBatch(NamedTuple):
    batch: Any
    loss: Tensor


def _lines(micro_batch: _MicroBatch, codec: Any) -> list[dict[str, Any]]:
    batch, loss = micro_batch
    said = {"loss": repr(float(loss.sum()))}  # JSON has no nan
    if not (isinstance(batch, Mapping) and "input_ids" in batch):
        return [said | {"batch": repr(batch)}]
    lines = []
    for number, ids in enumerate(batch["input_ids"].tolist()):
        line: dict[str, Any] = said | {"input_ids": ids}
        if "labels" in batch:
            line["labels"] = batch["labels"][number].tolist()
        if codec is not None:
            line["text"] = codec.decode(ids)
        lines.append(line)
    return lines
