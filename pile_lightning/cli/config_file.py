"""The ``--config`` argument: a YAML file, or the name of a config that the package ships."""

from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from pile_lightning.config_file import read_config
from pile_lightning.shipped_configs import find_config

__all__ = ["ConfigFile", "run_folder"]


class ConfigFile(ActionConfigFile):
    """Takes the path of a config, or a shipped one's name: ``--config quickstart``.

    The ``config.yaml`` of a run's folder means the run in that folder, also after the folder was
    copied or renamed: ``trainer.default_root_dir`` is where the config lies.
    """

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Read the file, after checking that it is a config.

        Raises:
            FileNotFoundError: If there is no such file, and no shipped config of that name.
            ValueError: For a file that is no config.
        """
        if not str(values).lstrip().startswith("{"):  # settings in place of a file
            path = find_config(values)
            read_config(path)
            values = str(path)
        super().__call__(parser, cfg, values, option_string)  # type: ignore[no-untyped-call]
        folder = run_folder(values)
        if folder is not None:
            cfg["trainer.default_root_dir"] = folder


def run_folder(config: str | Path) -> str | None:
    """Return the run's folder that a config belongs to, or None for one that lies elsewhere."""
    path = Path(config)
    if path.name == "config.yaml" and (path.parent / "checkpoints").is_dir():
        return str(path.parent)
    return None
