"""A step that was saved before its validation is validated when the run goes on from it."""

from typing import Any

from lightning import Trainer

__all__ = ["keep_validation_due"]


def keep_validation_due(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Let a run that goes on from a step begin with its validation, if that is still to come.

    Lightning takes a step that was saved before its validation for one that was validated: its
    scores would be missing, and whoever stops or keeps by scores would do so by those before it.

    Args:
        checkpoint: What is being saved, changed in place.
        trainer: It validates by the number of batches, or nothing is changed.
    """
    every = trainer.val_check_batch
    if (
        "loops" not in checkpoint  # weights alone
        or not trainer.enable_validation
        or trainer.check_val_every_n_epoch is not None
        or not isinstance(every, int)
        or (trainer.fit_loop.total_batch_idx + 1) % every
    ):
        return
    loop = checkpoint["loops"]["fit_loop"]
    batches = loop["epoch_loop.batch_progress"]["current"]
    if batches["completed"] == batches["processed"]:
        return  # saved in the validation, or after it
    for name in ("total", "current"):
        # what it takes for a validation whose first batch was begun
        progress = loop["epoch_loop.val_loop.batch_progress"][name]
        begun = int(name == "total")
        progress.update(ready=begun, started=begun, processed=0, completed=0)
    if (trainer.fit_loop.total_batch_idx + 1) % trainer.accumulate_grad_batches == 0:
        # by which metrics are numbered: it counts the step as it goes on, and after the validation
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
