"""What a ``tokenizer.json`` from anywhere can get wrong, in one line with its path."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers

__all__ = ["check_ids", "naming", "read_spec"]

_MOST_IDS = 1 << 24
"""Sixty times the largest vocabulary in use; each id costs a row of the embedding."""
_MOST_BYTES = 1 << 29


def read_spec(path: Path) -> tuple[dict[str, Any], str]:
    """Return what a ``tokenizer.json`` says, and its text.

    Raises:
        FileNotFoundError: Where there is no such file.
        ValueError: Where it is none.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is not there, and text becomes tokens by it; give the folder of a run that "
            f"was trained on text, or put the tokenizer.json of the model's text there"
        ) from None
    if size > _MOST_BYTES:
        raise ValueError(_no_tokenizer(path, f"{size:,} bytes are more than {_MOST_BYTES:,}"))
    try:
        text = path.read_bytes().decode("utf-8")
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(_no_tokenizer(path, str(error) or "nothing is in it")) from error
    if not isinstance(spec, dict):
        raise ValueError(_no_tokenizer(path, f"its JSON is no object but a {type(spec).__name__}"))
    return spec, text


def check_ids(backend: tokenizers.Tokenizer) -> None:
    """Raise ValueError for an id that no network has room for."""
    vocabulary = backend.get_vocab(with_added_tokens=True)
    token = max(vocabulary, key=lambda token: vocabulary[token], default=None)
    if token is not None and vocabulary[token] >= _MOST_IDS:
        raise ValueError(
            f"it gives the token {token[:60]!r} the id {vocabulary[token]:,}, and ids are below "
            f"{_MOST_IDS:,}"
        )


def _no_tokenizer(path: str | Path, reason: str) -> str:
    line = " ".join(reason.split())[:300]
    return f"{path} is no tokenizer.json that can be read ({line}); repair it, or give another"


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn whatever the library raises into a ValueError with the path."""
    try:
        yield
    except BaseException as error:
        # a panic of the library is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(_no_tokenizer(path, str(error))) from error
