import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pile_lightning.data import TextData, TextModule

WORDS = [
    "the",
    "cat",
    "sat",
    "\u00e9t\u00e9",
    "\u4e2d",
    "\U0001f600",
    "<|endoftext|>",
    "1\r\n\n  x",
]


def text_of(number: int) -> str:
    chance = random.Random(number)
    return f"{number} " + " ".join(chance.choices(WORDS, k=chance.randrange(0, 60)))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred short documents in two folders."""
    root = tmp_path_factory.mktemp("corpus")
    for number in range(200):
        part = root / ("prose" if number % 3 else "code")
        part.mkdir(exist_ok=True)
        # bytes: text mode would change line ends
        (part / f"{number:03d}.txt").write_bytes(text_of(number).encode())
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def maker(kind: type[TextModule], folder: Path, cache: Path, **own: object) -> Callable[..., Any]:
    """Return what makes data modules of one kind, prepared, of two domains."""

    def make(**settings: object) -> TextModule:
        defaults: dict[str, Any] = {
            "sources": [str(folder / "prose"), str(folder / "code")],
            "tokenizer": "byte",
            "seq_len": 16,
            "val_fraction": 0.2,
            "cache_dir": str(cache),
        }
        data = kind(**(defaults | own | settings))
        data.prepare_data()
        return data

    return make


@pytest.fixture
def make_data(folder: Path, cache: Path) -> Callable[..., TextData]:
    """Make a prepared data module of two domains."""
    return maker(TextData, folder, cache)
