"""The ``--config`` argument: a YAML file, or the name of a config that the package ships."""

from typing import Any

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from pile_lightning.cli.yaml_files import read_config
from pile_lightning.shipped_configs import find_config

__all__ = ["ConfigFile"]


class ConfigFile(ActionConfigFile):
    """Takes the path of a config, or a shipped one's name: ``--config quickstart``."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Read the file, after checking that it is a config.

        Raises:
            FileNotFoundError: If there is no such file, and no shipped config of that name.
            ValueError: For a file that is no config.
        """
        if not str(values).lstrip().startswith("{"):  # settings in place of a file
            values = str(find_config(values))
            read_config(values)
        super().__call__(parser, cfg, values, option_string)  # type: ignore[no-untyped-call]
