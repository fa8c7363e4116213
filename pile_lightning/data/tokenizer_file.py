"""What a ``tokenizer.json`` from anywhere can get wrong, in one line with its path."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers

__all__ = ["START_TOKENS", "check_ids", "configured_start", "naming", "read_spec", "start_token"]

START_TOKENS = ("bos_token", "eos_token", "cls_token")
"""Settings of a Hugging Face tokenizer that name a start token, the first that is set."""

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


def configured_start(path: Path) -> str | None:
    """Return the start token that the settings in the folder of a ``tokenizer.json`` name.

    Args:
        path: The ``tokenizer.json``.

    Raises:
        ValueError: For settings that are no JSON object.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (path.parent / name).is_file():
            found = start_token(read_spec(path.parent / name)[0])
            if found is not None:
                return found
    return None


def start_token(settings: Mapping[str, Any]) -> str | None:
    """Return the token that opens a document: bos, else eos, else cls; None for none.

    Args:
        settings: Of a Hugging Face tokenizer, by name.

    Example:
        >>> start_token({"bos_token": None, "eos_token": {"content": "</s>"}})
        '</s>'
    """
    for name in START_TOKENS:
        token = settings.get(name)
        token = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(token, str) and token:
            return token
    return None


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
    return f"{path} is no {Path(path).name} that can be read ({line}); repair it, or give another"


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
