"""The config of a run's folder, and the modules that it names: a config is a program."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning import LightningModule

from pile_lightning.config_file import read_config, read_model_class

__all__ = ["import_model_class"]


def import_model_class(run: Path, *, like: str = "configs/quickstart.yaml") -> type[Any]:
    """Import what the model of a run's config names, as training did, and return its class.

    What a checkpoint names is not imported: it has to be among this.

    Args:
        run: The folder of the run.
        like: A config that trains one, for an error.

    Raises:
        FileNotFoundError: Where the folder is no run.
        ValueError: Where the config names no model, or one that cannot be imported.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run} is not the folder of a run: it has no config.yaml; train one with "
            f"`python train.py fit --config {like}`"
        )
    model_class = read_model_class(path)
    for class_path in _class_paths(read_config(path)["model"]):
        module = class_path.rpartition(".")[0] or "pile_lightning"
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"{path} uses {class_path}, and {module!r} cannot be imported ({error}); "
                f"install it, or add its folder to PYTHONPATH"
            ) from None
    module, _, name = model_class.rpartition(".")
    kind = getattr(sys.modules[module or "pile_lightning"], name, None)
    if not (isinstance(kind, type) and issubclass(kind, LightningModule)):
        raise ValueError(
            f"{path} gives the model the class {model_class}, which is no LightningModule; use the "
            f"version of {module!r} that the run was made with"
        )
    return kind


def _class_paths(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if isinstance(config.get("class_path"), str):
            yield config["class_path"]
        for value in config.values():
            yield from _class_paths(value)
    elif isinstance(config, list):
        for value in config:
            yield from _class_paths(value)
