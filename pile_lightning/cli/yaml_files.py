"""YAML files, in which no key stands twice: the loaders keep the last one and say nothing."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

__all__ = ["read_config", "refuse_repeated_keys"]


def read_config(path: Path) -> dict[str, Any]:
    """Return what a config file holds.

    Raises:
        FileNotFoundError: Where there is no such file.
        ValueError: For a file that is no config.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no config {path}; give the path of a YAML file")
    try:
        text = path.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no settings; a config has sections such as `data:`")
    check_keys(text)
    return config


def refuse_repeated_keys() -> None:
    """Let every config that is parsed from now on be refused where a key stands twice."""
    plain = get_loader("yaml")

    def load(stream: str) -> Any:
        if "\n" in stream.strip():  # a file, no value of the command line
            check_keys(stream)
        return plain(stream)

    set_loader("yaml", load, exceptions=(yaml.YAMLError,))


def check_keys(text: str) -> None:
    r"""Look for keys that stand twice in a mapping.

    Args:
        text: YAML.

    Raises:
        ValueError: For the first that does, with its lines.

    Example:
        >>> check_keys("members:\n  small: 1\n  small: 2")
        Traceback (most recent call last):
        ValueError: 'small' stands twice, in lines 2 and 3 of the config; rename one, or take it out
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return  # whoever loads it says it better
    for node in _mappings(root):
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name, count in Counter(key.value for key in keys).items():
            if count > 1 and name != "<<":
                at = [str(key.start_mark.line + 1) for key in keys if key.value == name]
                raise ValueError(
                    f"{name!r} stands twice, in lines {' and '.join(at)} of the config; rename "
                    f"one, or take it out"
                )


def _mappings(node: Any) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
        for key, value in node.value:
            yield from _mappings(key)
            yield from _mappings(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _mappings(item)
