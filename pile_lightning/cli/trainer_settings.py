"""Settings of the trainer that a run here cannot follow: refused before text is prepared."""

from typing import Any

__all__ = ["check_trainer"]

_REFUSED = {
    "barebones": (True, "it allows neither a log nor checkpoints, which a run here is to leave"),
    "enable_checkpointing": (False, "the end of a run is read from its last checkpoint"),
}


def check_trainer(trainer: Any) -> None:
    """Refuse settings that would fail late, or do nothing.

    Args:
        trainer: Settings of the trainer, as they were parsed.

    Raises:
        ValueError: For such a setting.

    Example:
        >>> from types import SimpleNamespace
        >>> check_trainer(SimpleNamespace(barebones=True))
        Traceback (most recent call last):
            ...
        ValueError: trainer.barebones=True: it allows neither a log nor checkpoints, which a run \
here is to leave; leave it out
    """
    for name, (value, why) in _REFUSED.items():
        if getattr(trainer, name, None) is value:
            raise ValueError(f"trainer.{name}={value}: {why}; leave it out")
    callbacks = getattr(trainer, "callbacks", None) or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        name = str(getattr(callback, "class_path", "")).rpartition(".")[2]
        if name == "StochasticWeightAveraging":
            raise ValueError(
                "StochasticWeightAveraging averages at the ends of epochs, and a run here counts "
                "steps: it would average nothing; set --average.decay=0.999 instead, or take the "
                "mean of kept checkpoints by `pile average`"
            )
