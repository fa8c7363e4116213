"""The configs that the package ships: a name such as ``quickstart`` is the path of one."""

from pathlib import Path

__all__ = ["FOLDER", "config_names", "find_config"]

FOLDER = Path(__file__).parent / "configs"
if not FOLDER.is_dir():  # a checkout on a file system without links
    FOLDER = Path(__file__).parents[1] / "configs"


def config_names() -> list[str]:
    """Return the names of the shipped configs, those of sub-folders last.

    Example:
        >>> "quickstart" in config_names(), "environment/sweep" in config_names()
        (True, True)
    """
    paths = (path.relative_to(FOLDER) for path in FOLDER.rglob("*.yaml"))
    return [path.with_suffix("").as_posix() for path in sorted(paths, key=lambda p: (p.parent, p))]


def find_config(name: str | Path) -> Path:
    """Return the path of a config: a file of the user's, or else one that the package ships.

    Args:
        name: A path, or a shipped config as ``quickstart``, ``quickstart.yaml`` or
            ``configs/quickstart.yaml``.

    Raises:
        FileNotFoundError: If it is neither; it names the nearest shipped ones.
        ValueError: For a folder, or a file that is no YAML by its name.

    Example:
        >>> find_config("quickstart").name
        'quickstart.yaml'
    """
    path = Path(name)
    if not path.exists():
        shipped = path.as_posix().removeprefix("configs/").removesuffix(".yaml")
        if shipped in config_names():
            return FOLDER / f"{shipped}.yaml"
        from difflib import get_close_matches

        near = get_close_matches(shipped, config_names(), n=3) or config_names()[:3]
        raise FileNotFoundError(
            f"there is no config {name}; give the path of a YAML file, or the name of a shipped "
            f"config, such as {', '.join(near)} (`pile config` lists them)"
        )
    if path.is_dir():
        in_it = path / "config.yaml"
        hint = f"; did you mean {in_it}?" if in_it.is_file() else ""
        raise ValueError(f"{name} is a folder, and a config is a YAML file{hint}")
    return path
