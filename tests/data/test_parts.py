"""Parts: which shards they are made of, what they are called, what they hold."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pile_lightning.data import ByteTokenizer
from pile_lightning.data.content import SequenceHash
from pile_lightning.data.part_plan import PartPlan, PartSettings, group_shards
from pile_lightning.data.part_writer import PartWriter
from pile_lightning.data.parts import Part
from pile_lightning.data.policy import BadInput
from pile_lightning.data.source import Shard, ShardedSource

SIZES = [1000, 100_000, 1_000_000, 40_000_000]


class Nothing(ShardedSource):
    def shards(self) -> list[Shard]:
        return []

    def read(self, shard: Shard, start: int = 0) -> object:
        return iter(())


def shard(name: str, size: int | None, identity: str = "v1") -> Shard:
    return Shard(name=name, num_bytes=size, identity=identity)


def folder(count: int) -> list[Shard]:
    chance = random.Random(5)
    return [shard(f"{i:04d}.txt", chance.choice(SIZES)) for i in range(count)]


@given(digests=st.lists(st.binary(min_size=8, max_size=8), max_size=9), cut=st.integers(0, 9))
def test_the_hash_of_a_sequence_is_the_sum_of_its_pieces(digests: list[bytes], cut: int) -> None:
    def hashed(some: list[bytes]) -> SequenceHash:
        value = SequenceHash()
        for digest in some:
            value = value.then(digest)
        return value

    assert hashed(digests[:cut]) + hashed(digests[cut:]) == hashed(digests)
    if len(set(digests)) > 1:
        assert hashed(sorted(digests)) != hashed(sorted(digests, reverse=True))


def test_groups_are_the_shards_in_order_and_large_ones_alone() -> None:
    shards = folder(500)
    groups = list(group_shards(shards))
    assert [one for group in groups for one in group] == shards
    assert all(len(g) == 1 for g in groups if any(s.num_bytes == 40_000_000 for s in g))
    assert list(group_shards([shard("a", None), shard("b", 5)]))[0] == (shard("a", None),)
    small = list(group_shards([shard(f"{i}", 4000) for i in range(20_000)]))
    assert 20 < len(small) < 80


@pytest.mark.parametrize("where", [0, 77, 250, 499])
def test_a_new_or_lost_shard_changes_the_part_around_it_only(where: int) -> None:
    shards = folder(500)
    before = set(group_shards(shards))
    more = shards.copy()
    more.insert(where, shard(f"{where:04d}-new.txt", 5000))
    assert len(before - set(group_shards(more))) <= 1
    assert len(before - set(group_shards([*shards[:where], *shards[where + 1 :]]))) <= 3


def test_a_part_is_called_by_what_decides_its_content() -> None:
    settings = PartSettings(tokenizer="t", bound=0.05)
    source = Nothing(name="a")

    def name(**changes: object) -> str:
        given = {"source": source, "shards": (shard("x", 5),), "settings": settings}
        return PartPlan(**(given | changes)).name  # type: ignore[arg-type]

    assert name() == name() == name(source=Nothing(name="b"), shards=(shard("x", None),))
    others = [
        name(shards=(shard("y", 5),)),
        name(shards=(shard("x", 5, "v2"),)),
        name(shards=(shard("x", 5), shard("y", 5))),
        name(settings=PartSettings(tokenizer="u", bound=0.05)),
        name(settings=PartSettings(tokenizer="t", bound=0.06)),
        name(settings=PartSettings(tokenizer="t", bound=0.05, train=False)),
        name(held_out_bytes=9),
    ]
    assert len({name(), *others}) == len(others) + 1


@pytest.mark.parametrize("in_memory", [1, 100, 1 << 20])
def test_documents_are_sorted_whether_they_fit_in_memory_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr("pile_lightning.data.part_writer._IN_MEMORY_BYTES", in_memory)
    (tmp_path / "new").mkdir()
    writer = PartWriter("p", tmp_path / "new", ByteTokenizer())
    chance = random.Random(0)
    expected: dict[tuple[str, str], list[str]] = {}
    for i in range(60):
        split, domain = (
            chance.choice(["train", "val"]),
            chance.choice([None, "b", "a.x", "\u00e9/"]),
        )
        text = f"{split} {domain} {i}"
        ids = ByteTokenizer().encode_batch([text])[0]
        writer.add(split, domain, ids, num_bytes=len(text.encode()), digest=bytes([i] * 8))
        expected.setdefault((split, domain or ""), []).append(text)
    part = writer.finish(tmp_path, bad=BadInput(num_records=60))
    assert Part.load(tmp_path, "p") == part
    assert list((tmp_path / "new").iterdir()) == []
    tokens = np.frombuffer((tmp_path / "p.tokens").read_bytes(), part.dtype)
    ends, sizes = np.frombuffer((tmp_path / "p.documents").read_bytes(), "<i8").reshape(2, -1)
    assert [(s.split, s.domain or "") for s in part.segments] == sorted(expected)
    document = token = 0
    for segment in part.segments:
        texts = expected[segment.split, segment.domain or ""]
        last = document + segment.counts.documents
        pieces = np.split(tokens[token:], ends[document:last])[: len(texts)]
        assert [ByteTokenizer().decode(piece) for piece in pieces] == texts
        assert sizes[document:last].tolist() == [len(text.encode()) for text in texts]
        document, token = last, token + segment.counts.tokens
    assert token == len(tokens)


@pytest.mark.filterwarnings("ignore:.*is damaged .* is made again")
def test_a_damaged_part_is_none(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()

    def make() -> None:
        writer = PartWriter("p", tmp_path / "new", ByteTokenizer())
        writer.add("train", None, np.array([1, 2], np.uint16), num_bytes=2, digest=bytes(8))
        writer.finish(tmp_path, bad=BadInput())

    for end, damage in [
        ("json", "{"),
        ("json", "[]"),
        ("json", '{"dtype": "<u2"}'),
        ("tokens", "short"),
        ("documents", ""),
    ]:
        make()
        assert Part.load(tmp_path, "p") is not None
        (tmp_path / f"p.{end}").write_text(damage)
        assert Part.load(tmp_path, "p") is None
    for end in ("json", "tokens", "documents"):
        make()
        (tmp_path / f"p.{end}").unlink()
        assert Part.load(tmp_path, "p") is None
