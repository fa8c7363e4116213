import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pile_lightning.data import TextData

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


@pytest.fixture
def make_data(folder: Path, cache: Path) -> Callable[..., TextData]:
    """Make a prepared data module of two domains."""

    def make(**settings: object) -> TextData:
        defaults: dict[str, object] = {
            "sources": [str(folder / "prose"), str(folder / "code")],
            "tokenizer": "byte",
            "seq_len": 16,
            "val_fraction": 0.2,
            "cache_dir": str(cache),
        }
        data = TextData(**(defaults | settings))
        data.prepare_data()
        return data

    return make
