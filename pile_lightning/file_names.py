"""Names that come from a file and become paths: a single part of one, or nothing."""

from typing import Any

__all__ = ["check_file_name"]

_LONGEST = 200  # bytes; file systems take 255, and something may be added to it


def check_file_name(name: Any, *, of: str) -> str:
    r"""Return a name that is a single part of a path, so that it leads out of no folder.

    Args:
        name: What a file, a checkpoint or another program gave as a name.
        of: What it names, and where it was found, for the error.

    Raises:
        ValueError: For anything else: separators, ``..``, drives, characters that are not printed.

    Example:
        >>> check_file_name("model-00001.safetensors", of="a file of the index")
        'model-00001.safetensors'
        >>> check_file_name("../model.safetensors", of="a file of the index")
        Traceback (most recent call last):
        ValueError: a file of the index is called '../model.safetensors', ...
    """
    if (
        not isinstance(name, str)
        or name in ("", ".", "..")
        or any(sign in "/\\:\0" or not sign.isprintable() for sign in name)
        or len(name.encode("utf-8", "surrogatepass")) > _LONGEST
    ):
        shown = repr(name) if len(repr(name)) <= _LONGEST else f"{repr(name)[:_LONGEST]}..."
        raise ValueError(
            f"{of} is called {shown}, which is not a plain file name and could lead out of the "
            f"folder; rename it there, to at most {_LONGEST} printable characters without / \\ :"
        )
    return name
