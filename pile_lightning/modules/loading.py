"""Modules from checkpoints, as data: nothing that a checkpoint says is run or imported.

Lightning's own way unpickles what comes from an ``http`` address, and calls what a checkpoint names
as ``_instantiator``.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from lightning import LightningModule
from torch import Tensor

from pile_lightning.checkpoint import read_checkpoint
from pile_lightning.checkpoint_settings import (
    check_checkpoint_settings,
    hyper_parameters,
    reading_checkpoint,
)
from pile_lightning.config_file import read_config
from pile_lightning.nn import weights_follow

__all__ = ["load_module"]

Module = TypeVar("Module", bound=LightningModule)


def load_module(
    kind: type[Module],
    source: str | Path | IO[bytes],
    map_location: Any = None,
    hparams_file: str | Path | None = None,
    strict: bool | None = None,
    weights_only: bool | None = None,
    **changes: Any,
) -> Module:
    """Make a module of what a checkpoint says, and give it the weights.

    Args:
        kind: The class.
        source: A file, the folder of a sharded checkpoint, the URL of a file, or an open file.
        map_location: Where to put the tensors; where they were, if that is there, by default.
        hparams_file: YAML with the settings, instead of those in the checkpoint.
        strict: Whether the weights have to be those that the module has; as the class says by
            default.
        weights_only: Only data is read, whatever this says.
        changes: Settings in the place of those in the checkpoint.

    Raises:
        FileNotFoundError: Where there is no such checkpoint.
        ValueError: For a checkpoint that is damaged, holds more than data, or names what is not
            imported.
    """
    del weights_only  # for callers that give it to Lightning's
    name = source if isinstance(source, str | Path) else "the checkpoint"
    with reading_checkpoint(), weights_follow():
        checkpoint = read_checkpoint(
            source, map_location=_where_it_was if map_location is None else map_location
        )
        stored = hyper_parameters(checkpoint, name=str(name))
        if hparams_file is not None:
            stored = hyper_parameters(
                {"hyper_parameters": read_config(Path(hparams_file))}, name=str(hparams_file)
            )
        module: Module = _make(kind, stored, changes, of=str(name))
        module.configure_model()
        module.on_load_checkpoint(checkpoint)
        weights = checkpoint.get("state_dict")
        if not isinstance(weights, Mapping):
            raise ValueError(f"{name} has no weights (state_dict); take another checkpoint")
        module.load_state_dict(weights, strict=module.strict_loading if strict is None else strict)
    for tensor in weights.values():
        if isinstance(tensor, Tensor):
            module.to(tensor.device)
            break
    return module


def _make(kind: Any, stored: Mapping[str, Any], changes: Mapping[str, Any], *, of: str) -> Any:
    kept = _taken(kind, {key: value for key, value in stored.items() if key not in changes})
    own = getattr(kind, "kept_plain", ())
    check_checkpoint_settings(
        kind, {key: value for key, value in kept.items() if key not in own}, of=of
    )
    return kind(**kept, **_taken(kind, changes))


def _taken(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a class takes: others are of its Lightning module's hooks."""
    parameters = inspect.signature(kind).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return dict(settings)
    return {name: value for name, value in settings.items() if name in parameters}


def _where_it_was(storage: Any, location: str) -> Any:
    """Put a storage into memory where its device is not there; see ``torch.load``."""
    kind = location.partition(":")[0]
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    return None if there.get(kind, False) else storage.cpu()
