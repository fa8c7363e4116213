"""The base class: two methods make a source, and it can be read like any other."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pile_lightning.data import Document, FileSource, Shard, ShardedSource, Skipped, Source


@dataclass(frozen=True, kw_only=True)
class Countdown(Source):
    first: int = 5

    def documents(self) -> Iterator[Document | Skipped]:
        for i in range(self.first, 0, -1):
            yield Document(str(i), f"{i}") if i % 3 else Skipped("three", f"{i}")

    def fingerprint(self) -> str:
        return f"from {self.first}"


class Folders(ShardedSource):
    def shards(self) -> list[Shard]:
        return [Shard(name=name, identity="1", num_bytes=len(name)) for name in ("a", "bc")]

    def read(self, shard: Shard, start: int = 0) -> Iterator[Document | Skipped]:
        yield from [Document(letter, shard.name) for letter in shard.name][start:]


def test_two_methods_make_a_source() -> None:
    source = pickle.loads(pickle.dumps(Countdown(name="x", first=7)))
    (shard,) = source.shards()
    assert shard == Shard(name="x", num_bytes=None, identity="from 7")
    items = list(source.documents())
    assert len(items) == 7
    for start in range(9):
        assert list(source.read(shard, start)) == items[start:]


def test_shards_make_a_source() -> None:
    source = Folders(name="x")
    assert [document.text for document in source.documents()] == ["a", "b", "c"]
    assert source.num_bytes() == 3
    assert source.fingerprint() == Folders(name="y", weight=3).fingerprint()


@pytest.mark.parametrize("weight", [0, -1.0, float("nan")])
def test_weights_that_are_no_share(weight: float) -> None:
    with pytest.raises(ValueError, match=r"of source 'x' is no share of a mixture; give a number"):
        Countdown(name="x", weight=weight)
    with pytest.raises(ValueError, match=r"is no share of a mixture"):
        FileSource("x", weight=weight)
