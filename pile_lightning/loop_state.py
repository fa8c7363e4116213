"""Lightning's loop progress: the one file that reads or writes it.

Lightning counts a batch as ready, started, processed and completed, and what it does when a run
goes on depends on which of these a checkpoint caught. Here every checkpoint has the same form,
whatever the moment it was saved at: so many batches done, and whether the validation after the last
of them is done as well. That validation, and what a run does at its end, come when the run goes on,
also where no step is left to take.

Only endless streams are put into that form: the end of an epoch stays as Lightning has it.
"""

from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop

__all__ = ["LoopState", "align_batches", "finished_batches", "is_within_step"]

_VALIDATED = "validated"


class LoopState(Callback):
    """Let a run go on from exactly what it had done, whenever the checkpoint was saved."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Bring the progress into the one form."""
        epoch = trainer.fit_loop.epoch_loop
        if (
            trainer.state.fn != "fit"
            or not pl_module.automatic_optimization
            or epoch.batch_progress.is_last_batch
        ):
            return
        saved = checkpoint["loops"]["fit_loop"]
        for counts in _both(saved["epoch_loop.batch_progress"]):
            counts.update(dict.fromkeys(counts, counts["processed"]))
        scored = saved["epoch_loop.val_loop.batch_progress"]
        scored["is_last_batch"] = False
        for counts in _both(scored):
            counts.update(dict.fromkeys(counts, 0))
        for counts in _both(saved["epoch_progress"]):  # its end was not reached
            counts["processed"] = counts["completed"] = max(0, counts["started"] - 1)
        # by which metrics are numbered
        saved["epoch_loop.state_dict"]["_batches_that_stepped"] = trainer.global_step
        saved[_VALIDATED] = _is_validated(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Arrange that the run begins with what is still to be done of its last step."""
        validated = checkpoint.get("loops", {}).get("fit_loop", {}).get(_VALIDATED)
        if trainer.state.fn == "fit" and validated is not None:
            loop = trainer.fit_loop
            if type(loop) is _FitLoop:
                loop.__class__ = _ResumedFitLoop
            cast(_ResumedFitLoop, loop).validated = validated


class _ResumedFitLoop(_FitLoop):
    """Lightning's loop, which goes through the end of a run that has taken its last step."""

    validated: bool | None
    """Whether the validation after the last batch is done; None once that is seen to."""

    def setup_data(self) -> None:
        """Prepare the data, and say what is still to be done of the step before."""
        super().setup_data()
        if self.validated is not None and self._data_fetcher is not None:
            self._settle(self.validated)
            self.validated = None

    def _settle(self, validated: bool) -> None:
        epoch = self.epoch_loop
        scheduled = epoch._should_check_val_fx(self._data_fetcher)
        progress = epoch.val_loop.batch_progress
        progress.reset()
        if scheduled and not validated:
            # what Lightning takes for a validation whose first batch was begun
            progress.total.ready = progress.total.started = 1
        elif epoch._is_training_done:
            # what it takes for one that is done: nothing is left but the end
            epoch.val_loop._has_run = True
            return
        if scheduled:  # it passes by the batch again, and counts it
            epoch._batches_that_stepped -= 1

    @property
    def done(self) -> bool:
        """Whether to leave: not before the end of a run was gone through once."""
        if self.restarting and self.max_batches != 0:
            return False
        return bool(super().done)


def finished_batches(trainer: Trainer) -> int:
    """Return the batches that the trainer is done with, in all.

    Not those ``completed``, which are counted only after the hooks that save checkpoints, nor those
    ``ready``, among which is one that an exception interrupted.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)


def is_within_step(trainer: Trainer) -> bool:
    """Say whether some but not all batches of an optimizer step are done."""
    done = trainer.fit_loop.epoch_loop.batch_progress.current.processed
    return bool(done % trainer.accumulate_grad_batches)


def align_batches(trainer: Trainer, *, before: int, now: int) -> None:
    """Count the finished steps in batches of this run, so that the next batch begins a step.

    Lightning steps at every multiple of ``accumulate_grad_batches`` of a count that it restores:
    after a checkpoint from within a step, or another ``accumulate_grad_batches``, the first step
    would be taken on part of its batches, and validation would come at other steps than before.

    Args:
        trainer: Its progress is restored.
        before: Batches of a step of the run before.
        now: Batches of a step of this run.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    for counts in (progress.total, progress.current):
        shift = counts.processed // before * now - counts.processed
        # by the same number all: their differences say where the checkpoint was saved
        counts.ready += shift
        counts.started += shift
        counts.processed += shift
        counts.completed += shift


def _both(progress: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    return progress["total"], progress["current"]


def _is_validated(trainer: Trainer) -> bool:
    """Say whether the last finished step has been validated, if it is to be."""
    epoch = trainer.fit_loop.epoch_loop
    batches = epoch.batch_progress.current
    if is_within_step(trainer):
        return True  # what was before this step is done
    if trainer.validating:
        seen = epoch.val_loop.batch_progress
        return bool(seen.is_last_batch and seen.current.completed == seen.current.ready)
    if epoch.restarting:
        return not epoch.val_loop.restarted_mid_evaluation
    return bool(batches.completed == batches.processed)
