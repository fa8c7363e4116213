"""A step that was saved before its validation is validated when the run goes on from it."""

from typing import Any

__all__ = ["keep_validation_due"]


def keep_validation_due(checkpoint: dict[str, Any], *, validating: bool) -> None:
    """Let a run that goes on from a step begin with its validation, if it was to be validated.

    Lightning takes a step that was saved before its validation for one that was validated: its
    scores would be missing, and whoever stops or keeps by scores would do so by those before it.

    Args:
        checkpoint: What is being saved, changed in place.
        validating: Whether it is saved in a validation, or as it ends.
    """
    loops = checkpoint.get("loops")  # not there where weights are saved alone
    if validating or loops is None:
        return
    for name in ("total", "current"):
        # what it takes for a validation whose first batch was begun
        progress = loops["fit_loop"]["epoch_loop.val_loop.batch_progress"][name]
        begun = int(name == "total")
        progress.update(ready=begun, started=begun, processed=0, completed=0)
