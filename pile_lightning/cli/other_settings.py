"""Why a checkpoint does not fit the model of the config: the settings that differ, by name."""

from collections.abc import Iterator, Mapping
from typing import Any

from pile_lightning.checkpoint import read_checkpoint
from pile_lightning.checkpoint_settings import hyper_parameters
from pile_lightning.config import to_plain

__all__ = ["differing_settings", "why_not_resumed"]

_OF_WEIGHTS = ("Error(s) in loading state_dict",)
_OF_OPTIMIZER = ("different number of parameter groups", "doesn't match the size of optimizer")
_AT_MOST = 4


def why_not_resumed(error: Exception, model: Any, checkpoint: str | None) -> str | None:
    """Return which settings keep a run from going on, or None for an error of another kind.

    Args:
        error: Of torch, which lists tensors or says that groups differ.
        model: The module of the config.
        checkpoint: The path of the checkpoint.
    """
    message = str(error)
    of_weights = any(words in message for words in _OF_WEIGHTS)
    if checkpoint is None or not (of_weights or any(words in message for words in _OF_OPTIMIZER)):
        return None
    stored = hyper_parameters(
        read_checkpoint(checkpoint, without=("state_dict", "optimizer_states")), name=checkpoint
    )
    differences = list(differing_settings(stored, dict(model.hparams)))
    harmless = ("schedule", "compile", "optimizer") if of_weights else ("schedule", "compile")
    other = [each for each in differences if not each.startswith(harmless)]
    listed = "; ".join(other[:_AT_MOST]) or "its class, or what it builds"
    more = f"; and {len(other) - _AT_MOST} more" if len(other) > _AT_MOST else ""
    what = "model" if of_weights else "optimizer"
    return (
        f"{checkpoint} is of another {what}: {listed}{more}. Resume with the settings of its run, "
        f"or start a new run"
    )


def differing_settings(stored: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what each setting was and is, where that differs.

    Example:
        >>> list(differing_settings({"z_loss": 0.0, "seed": 8}, {"z_loss": 0.1, "seed": 8}))
        ['z_loss was 0.0 and is 0.1']
    """
    before, after = dict(_flat(to_plain(dict(stored)))), dict(_flat(to_plain(dict(now))))
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield f"{name} was {before[name]!r} and is {after[name]!r}"


def _flat(settings: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting by its dotted name, as on the command line."""
    if not isinstance(settings, Mapping) or not settings:
        yield name, settings
        return
    if set(settings) == {"class_path", "init_args"}:
        yield name, settings["class_path"].rpartition(".")[2]
        settings = settings["init_args"]
    for key, value in settings.items():
        yield from _flat(value, f"{name}.{key}" if name else str(key))
