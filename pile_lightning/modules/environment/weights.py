"""Members that begin with weights from elsewhere: a run of ours, or a folder of Hugging Face's."""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import yaml

from pile_lightning.checkpoint import as_file
from pile_lightning.checkpoint.swap import standing
from pile_lightning.config import to_plain
from pile_lightning.modules.base import LanguageModule
from pile_lightning.modules.restorable import arguments_of
from pile_lightning.nn import HuggingFaceConfig, await_weights, will_follow

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
    if weights is None or will_follow():
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
        state = _load(_checkpoint_of(weights, of=of))
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
        kind = _class_of(path)
    if kind is None:
        raise ValueError(
            f"{of}: nothing beside {path} says of which class it is (a run's config.yaml does); "
            f"give its class_path"
        )
    return {"class_path": kind, "init_args": dict(init_args), "weights": weights}


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
    path = standing(Path(checkpoint))
    return _settings(path, path.stat().st_mtime_ns)


# a large one takes seconds to be read, and is asked before there is data and after it
@lru_cache(maxsize=16)
def _settings(path: Path, written: int) -> dict[str, Any]:
    return arguments_of(_load(path)["hyper_parameters"])


def _load(path: Path) -> dict[str, Any]:
    with as_file(path) as file:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _class_of(path: Path) -> str | None:
    """Return the class that the run of a checkpoint says in its config."""
    for folder in (path.parent.parent, path.parent):
        if (folder / "config.yaml").is_file():
            config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            found: str = config["model"]["class_path"]
            return found
    return None
