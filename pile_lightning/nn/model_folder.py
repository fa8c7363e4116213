"""Folders of Hugging Face models: checked before a library reads them, and read no further."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from pile_lightning.file_names import check_file_name

__all__ = ["check_finite", "check_loaded", "check_model_folder"]

_NAMES_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def check_model_folder(folder: Path) -> None:
    """Refuse a folder whose files lead out of it, or to a program.

    The links of the hub's cache, from ``snapshots/<commit>`` to ``blobs``, stay within the model.

    Raises:
        ValueError: For the first file that does.
    """
    root = folder.resolve()
    within = [root]
    if root.parent.name == "snapshots":
        within.append(root.parents[1] / "blobs")
    for path in sorted(folder.iterdir()):
        target = path.resolve()
        if path.is_symlink() and not any(place in target.parents for place in within):
            raise ValueError(
                f"{path} is a link out of the folder of the model, to {target}; copy what it "
                f"points to, or name the folder where the model lies"
            )
    for name in _NAMES_FILES:
        if (folder / name).is_file():
            weights = _object(folder / name).get("weight_map")
            if not isinstance(weights, dict):
                raise ValueError(f"{folder / name} has no weight_map; take the model's own index")
            for file in weights.values():
                check_file_name(file, of=f"a file in {folder / name}")
    config = _object(folder / "config.json")
    code = config.get("auto_map")
    for value in code.values() if isinstance(code, dict) else ():
        if "--" in str(value):
            raise ValueError(
                f"{folder / 'config.json'} names code in another place ({value}); its code is not "
                f"run, so take a model that transformers knows without it"
            )
    if config.get("transformers_weights") is not None:
        check_file_name(config["transformers_weights"], of=f"the weights in {folder}/config.json")


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(
            f"{path.parent} is no folder of a Hugging Face model: it has no {path.name}; name one "
            f"that save_pretrained has written"
        ) from None
    except (ValueError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{path} is not JSON ({said}); take the model's own") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no object at its top; take the model's own")
    return found


def check_loaded(model: nn.Module, info: Any, *, name: str) -> None:
    """Refuse a model of which some weights were not in its files, or are no numbers.

    Args:
        model: The model.
        info: What ``from_pretrained`` says of how it was loaded.
        name: What to call it in an error.

    Raises:
        ValueError: For the first such weight.
    """
    for key, problem in (
        ("missing_keys", "are missing, and would be random"),
        ("mismatched_keys", "are of another shape than config.json says"),
    ):
        found = sorted(each if isinstance(each, str) else str(each[0]) for each in info[key] or ())
        if found:
            raise ValueError(
                f"{name}: the weights {found[0]}{_more(len(found))} {problem}; take a whole model"
            )
    check_finite(model, name=name)


def check_finite(module: nn.Module, *, name: str) -> None:
    """Refuse weights that are no numbers.

    Raises:
        ValueError: For the first tensor with NaN or infinity.
    """
    for key, value in module.named_parameters():
        if not value.is_meta and not value.isfinite().all():
            raise ValueError(
                f"{name}: the weights {key} are not finite; take the model from a step before it "
                f"diverged, or download its files again"
            )


def _more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""
