"""Config files as plain data: YAML that runs no code, with errors of one line."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

__all__ = ["check_config_text", "parse_config", "read_config", "read_model_class"]

_MOST_VALUES = 1_000_000
"""Values of a config with its aliases written out: a few lines can stand for billions."""


def read_config(path: Path) -> dict[str, Any]:
    """Return what a config file holds.

    Raises:
        FileNotFoundError: Where there is no such file.
        ValueError: For a file that is no config, with its line where there is one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no config {path}; give the path of a YAML file")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as "
            f"UTF-8"
        ) from None
    return parse_config(text, name=str(path))


def read_model_class(path: Path) -> str:
    """Return the class that the config of a run gives its model.

    Raises:
        FileNotFoundError: Where there is no such file.
        ValueError: For a file that is no config of a run.
    """
    model = read_config(path).get("model")
    found = model.get("class_path") if isinstance(model, dict) else None
    if not isinstance(found, str):
        raise ValueError(
            f"{path} does not say which model the run has; a run's config has a class_path below "
            f"`model:`"
        )
    return found


def parse_config(text: str, *, name: str) -> dict[str, Any]:
    r"""Return what the text of a config holds: numbers, strings, lists and mappings.

    Args:
        text: YAML.
        name: What to call it in an error.

    Raises:
        ValueError: For text that is no config.

    Example:
        >>> parse_config("seed: 1\ndata: !!python/name:os.system", name="a.yaml")
        Traceback (most recent call last):
        ValueError: a.yaml, line 2: could not determine a constructor for the tag ...
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise ValueError(f"{name} is empty; a config has sections such as `data:`")
        if not isinstance(root, yaml.MappingNode):
            raise ValueError(f"{name} holds no settings; a config has sections such as `data:`")
        _check_size(root, name)
        _check_keys(root, name)
        return _construct(loader, root, name)
    except yaml.YAMLError as error:
        _fail(error, text, name)
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply to be a config; flatten it") from None


def _construct(loader: yaml.SafeLoader, root: yaml.Node, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = loader.construct_document(root)
    except (ValueError, ArithmeticError, TypeError, AttributeError) as error:  # such as a date
        raise ValueError(
            f"{name} holds a value that cannot be read ({error}); put it in quotes, or correct it"
        ) from None
    return content


def check_config_text(text: str, *, name: str) -> None:
    r"""Refuse keys that stand twice, and aliases that stand for too much, before YAML is loaded.

    What is no YAML is left to whoever loads it.

    Args:
        text: YAML.
        name: What to call it in an error.

    Raises:
        ValueError: For the first of them.

    Example:
        >>> check_config_text("members:\n  small: 1\n  small: 2", name="the config")
        Traceback (most recent call last):
        ValueError: 'small' stands twice, in lines 2 and 3 of the config; rename one, or take it out
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply to be a config; flatten it") from None
    if root is not None:
        _check_size(root, name)
        _check_keys(root, name)


def _fail(error: yaml.YAMLError, text: str, name: str) -> NoReturn:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        why = f"the character U+{ord(text[error.position]):04X} cannot stand in YAML"
        raise ValueError(f"{name}, line {line}: {why}; take it out") from None
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f", line {mark.line + 1}"
    why = getattr(error, "problem", None) or " ".join(str(error).split())
    raise ValueError(f"{name}{where}: {why}; a config is YAML of plain values") from None


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _check_size(root: yaml.Node, name: str) -> None:
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = None  # until its children are counted
            sizes[id(node)] = 1 + sum(map(size, _children(node)))
        found = sizes[id(node)]
        line = node.start_mark.line + 1
        if found is None:
            raise ValueError(
                f"{name}, line {line}: an alias stands for what it is part of; write it out"
            )
        if found > _MOST_VALUES:
            raise ValueError(
                f"{name}, line {line}: its aliases stand for more than {_MOST_VALUES:,} values; "
                f"write out what is meant"
            )
        return found

    size(root)


def _check_keys(root: yaml.Node, name: str) -> None:
    for node in _mappings(root, set()):
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, count in Counter(each.value for each in keys).items():
            if count > 1 and key != "<<":
                at = [str(each.start_mark.line + 1) for each in keys if each.value == key]
                raise ValueError(
                    f"{key!r} stands twice, in lines {' and '.join(at)} of {name}; rename one, or "
                    f"take it out"
                )


def _mappings(node: yaml.Node, seen: set[int]) -> Iterator[yaml.MappingNode]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node
    for child in _children(node):
        yield from _mappings(child, seen)
