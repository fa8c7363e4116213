"""Members that begin with weights from elsewhere: a run of ours, or a folder of Hugging Face's."""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pile_lightning.checkpoint import read_checkpoint
from pile_lightning.checkpoint.remote import is_url
from pile_lightning.checkpoint.swap import standing
from pile_lightning.checkpoint_settings import (
    check_checkpoint_settings,
    hyper_parameters,
    is_reading_checkpoint,
)
from pile_lightning.config import find_imported, to_plain
from pile_lightning.config_file import read_model_class
from pile_lightning.modules.base import LanguageModule
from pile_lightning.modules.environment.parse import find_class
from pile_lightning.nn import HuggingFaceConfig, await_weights, will_follow
from pile_lightning.nn.model_folder import check_finite

__all__ = ["read_weights", "settings_of", "with_origin"]


def with_origin(member: Mapping[str, Any], *, of: str) -> Mapping[str, Any]:
    """Return what a member is, with what its ``weights`` say of it filled in.

    What it says itself comes first. Where the weights are gone and it says all itself, as in the
    ``config.yaml`` of a run, nothing is filled in: a run that goes on has them in its checkpoint.

    Args:
        member: Plain data, with or without ``class_path`` and ``init_args``.
        of: What to call it in an error.

    Raises:
        FileNotFoundError: Where there are no such weights.
        ValueError: Where they are of several models, or of a class that cannot be told.
    """
    weights = member.get("weights")
    if weights is None or will_follow() or is_reading_checkpoint():
        return member
    if not isinstance(weights, str):
        raise ValueError(f"{of}: weights={weights!r} is no path; name the folder of a run")
    try:
        own = _origin(weights, kind=member.get("class_path"), of=of)
    except FileNotFoundError:
        if member.get("class_path") and member.get("init_args"):
            return member
        raise
    return {
        **member,
        "class_path": member.get("class_path") or own["class_path"],
        "init_args": {**own["init_args"], **(member.get("init_args") or {})},
        "weights": own["weights"],
    }


def read_weights(module: LanguageModule, weights: str, *, of: str) -> None:
    """Give a built module the weights of a run; where they are gone, it waits for a checkpoint.

    Args:
        module: The module.
        weights: Folder of a run, or a checkpoint.
        of: What to call it in an error.

    Raises:
        ValueError: Where they are of another network, or damaged.
    """
    network = module.built_network
    if will_follow():
        await_weights(network, f"the weights of {of} were to come from a checkpoint")
        return
    try:
        state = read_checkpoint(_checkpoint_of(weights, of=of))
    except FileNotFoundError as error:
        await_weights(network, str(error))
        return
    try:
        module.load_state_dict(state["state_dict"])
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise ValueError(
            f"{of}: the weights in {weights} are of another network ({' '.join(lines)}); leave its "
            f"class_path and network out, which are then those of the weights"
        ) from None
    check_finite(module, name=f"{of}: {weights}")


def _origin(weights: str, *, kind: str | None, of: str) -> dict[str, Any]:
    """Return class and settings of what has been trained, and the weights that are yet to read."""
    folder = Path(weights).expanduser()
    if (folder / "config.json").is_file() and not (folder / "checkpoints").is_dir():
        network = to_plain(HuggingFaceConfig(model=os.fspath(folder.resolve())))
        # which reads its weights by itself
        init_args = {"network": network}
        return {"class_path": "CausalLM", "init_args": init_args, "weights": None}
    path = _checkpoint_of(weights, of=of)
    init_args = settings_of(path)
    if "members" in init_args:
        raise ValueError(
            f"{of}: {weights} is a run of several models; name one of them: "
            f"{folder / 'members' / next(iter(init_args['members']))}"
        )
    if kind is None:
        kind = _class_of(path, of=of)
    found = check_checkpoint_settings(
        find_class(kind, of=of), init_args, of=f"{of}: the settings in {path}"
    )
    return {"class_path": kind, "init_args": found, "weights": weights}


def _checkpoint_of(weights: str, *, of: str) -> Path:
    """Return the checkpoint of a run, the best there is, or the one that is named."""
    folder = Path(weights).expanduser()
    named = [folder]
    if folder.is_dir() and not folder.name.endswith(".ckpt"):
        named = [folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    for path in named:
        if standing(path).exists():
            return standing(path)
    raise FileNotFoundError(
        f"{of}: weights={weights!r} is neither the folder of a run with a checkpoint, nor a "
        f"checkpoint, nor a folder of Hugging Face's with a config.json; name one (a model of the "
        f"hub by class_path: CausalLM with network: {{class_path: "
        f"pile_lightning.nn.HuggingFaceConfig, init_args: {{model: its name}}}})"
    )


def settings_of(checkpoint: str | Path) -> dict[str, Any]:
    """Return the hyper-parameters in a checkpoint, as plain data."""
    if is_url(checkpoint):
        return hyper_parameters(read_checkpoint(checkpoint), name=str(checkpoint))
    path = standing(Path(checkpoint))
    return _settings(path, path.stat().st_mtime_ns)


# a large one takes seconds to be read, and is asked before there is data and after it
@lru_cache(maxsize=16)
def _settings(path: Path, written: int) -> dict[str, Any]:
    return hyper_parameters(read_checkpoint(path, without=("state_dict",)), name=str(path))


def _class_of(path: Path, *, of: str) -> str:
    """Return the class that the run of a checkpoint says in its config; it is not imported."""
    for folder in (path.parent.parent, path.parent):
        if (folder / "config.yaml").is_file():
            found = read_model_class(folder / "config.yaml")
            if "." in found and find_imported(found) is None and not _is_ours(found):
                raise ValueError(
                    f"{of}: {folder / 'config.yaml'} gives the weights the class {found!r}, which "
                    f"is not imported; give it as class_path here if you trust its code"
                )
            return found
    raise ValueError(
        f"{of}: nothing beside {path} says of which class it is (a run's config.yaml does); "
        f"give its class_path"
    )


def _is_ours(class_path: str) -> bool:
    return class_path.rpartition(".")[0] == "pile_lightning"
