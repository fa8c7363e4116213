"""Formats: the same documents from every one, from any item on, wherever the files lie."""

import gzip
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pile_lightning.data import Document, FileSource, Skipped, formats

RECORDS = [
    {
        "text": f"text {i} \u2028\u0085 {'x' * (i % 7 * 40)}",
        "meta": {"pile_set_name": f"set {i % 3}"},
    }
    for i in range(60)
]
EXPECTED = [(record["text"], record["meta"]["pile_set_name"]) for record in RECORDS]
JSONL = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode()


def in_two(data: bytes, compress: Callable[[bytes], bytes]) -> bytes:
    half = len(data) // 2
    return compress(data[:half]) + compress(data[half:])


def parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(RECORDS), path, row_group_size=13)


WRITERS: dict[str, Callable[[Path], object]] = {
    "jsonl": lambda path: path.write_bytes(JSONL),
    "ndjson": lambda path: path.write_bytes(b"\xef\xbb\xbf" + JSONL.replace(b"\n", b"\r\n\r\n")),
    "jsonl.gz": lambda path: path.write_bytes(in_two(JSONL, gzip.compress) + bytes(512)),
    "jsonl.zst": lambda path: path.write_bytes(in_two(JSONL, zstandard.compress)),
    "parquet": parquet,
}


def documents(source: FileSource) -> list[tuple[str, str | None]]:
    items = list(source.documents())
    assert all(isinstance(item, Document) for item in items)
    return [(item.text, item.domain) for item in items if isinstance(item, Document)]


def listing(source: FileSource) -> list[tuple[str, str]]:
    return [(shard.name, shard.identity) for shard in source.shards()]


@pytest.fixture(params=WRITERS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "here" / f"a.{request.param}"
    path.parent.mkdir()
    WRITERS[request.param](path)
    return path


@pytest.fixture(params=[64 << 20, 700])
def range_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(formats, "RANGE_BYTES", request.param)
    return request.param


def test_the_same_documents_from_every_format(path: Path, range_bytes: int) -> None:
    source = FileSource(path, domain_key="meta.pile_set_name")
    assert source.name == "a"
    assert documents(source) == EXPECTED
    is_cut = path.suffix in (".jsonl", ".ndjson", ".parquet") and range_bytes < 1000
    assert (len(source.shards()) > 1) == is_cut
    assert documents(FileSource(path.parent, domain_key="meta.pile_set_name")) == EXPECTED


def test_any_item_is_where_a_reader_can_go_on(path: Path, range_bytes: int) -> None:
    source = pickle.loads(pickle.dumps(FileSource(path)))
    shards = pickle.loads(pickle.dumps(source.shards()))
    whole = [list(source.read(shard)) for shard in shards]
    assert [item for items in whole for item in items] == list(source.documents())
    for shard, items in zip(shards, whole, strict=True):
        for start in range(len(items) + 2):
            assert list(source.read(shard, start)) == items[start:]


def test_moved_files_are_the_same_data(path: Path, range_bytes: int, tmp_path: Path) -> None:
    source = FileSource(path.parent, name="x")
    expected, shards = list(source.documents()), listing(source)
    moved = FileSource(shutil.move(path.parent, tmp_path / "there"), name="x")
    assert list(moved.documents()) == expected
    assert listing(moved) == shards
    with pytest.raises(FileNotFoundError):
        source.shards()


def test_identities_follow_what_is_read(path: Path) -> None:
    ways = [FileSource(path), FileSource(path, text_key="x"), FileSource(path, domain_key="y")]
    assert len({way.shards()[0].identity for way in ways}) == 3
    assert FileSource(path, weight=2.0).fingerprint() == FileSource(path).fingerprint()


def test_bytes_are_known_before_reading(path: Path) -> None:
    assert 0.02 < FileSource(path).num_bytes() / len(JSONL) < 2


@pytest.mark.parametrize("range_bytes", range(1, 60))
def test_ranges_hold_every_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, range_bytes: int
) -> None:
    monkeypatch.setattr(formats, "RANGE_BYTES", range_bytes)
    lines = [b'{"text": "%s"}' % (b"x" * length) for length in (1, 50, 1, 0, 20, 3)]
    content = b"\n".join([lines[0], b"", *lines[1:3], b"broken", *lines[3:]])
    (tmp_path / "a.jsonl").write_bytes(content)
    items = list(FileSource(tmp_path / "a.jsonl").documents())
    assert [len(item.text) for item in items if isinstance(item, Document)] == [1, 50, 1, 20, 3]
    # lines count from the beginning of the file, in every range
    assert [item for item in items if isinstance(item, Skipped)] == [
        Skipped("broken JSON", "a.jsonl:5"),
        Skipped("empty text", "a.jsonl:6"),
    ]
    for item in items:
        if isinstance(item, Document) and range_bytes < len(content):
            assert content[int(item.name.rpartition(" ")[2]) :].startswith(b'{"text": "x')


@pytest.mark.parametrize("num_bytes", [1, 7, 40, 90, 10_000])
@pytest.mark.parametrize("range_bytes", [50, 64 << 20])
def test_divided_shards_hold_what_they_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, range_bytes: int, num_bytes: int
) -> None:
    monkeypatch.setattr(formats, "RANGE_BYTES", range_bytes)
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "one"}\n\n{"text": "t\nbroken\n{"text": "three"}\n'
    )
    source = FileSource(tmp_path / "a.jsonl")
    for shard in source.shards():
        parts = source.divide(shard, num_bytes)
        assert len(parts) == -(-(shard.num_bytes or 0) // num_bytes)
        assert sum(part.num_bytes or 0 for part in parts) == shard.num_bytes
        assert {part.identity for part in parts} == {shard.identity}
        found = [item for part in parts for item in source.read(part)]
        for item, whole in zip(found, source.read(shard), strict=True):
            # lines that are reported have numbers, in every part
            assert item == whole or (isinstance(item, Document) and item.text == whole[0])


def test_what_is_read_from_its_beginning_is_not_divided(path: Path) -> None:
    source = FileSource(path)
    is_plain = path.suffix in (".jsonl", ".ndjson")
    assert all((len(source.divide(shard, 50)) > 1) == is_plain for shard in source.shards())


def test_text_is_read_whole_also_compressed(tmp_path: Path) -> None:
    (tmp_path / "a.py.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfone\r\n"))
    (tmp_path / "b.md.zst").write_bytes(zstandard.compress(b"two"))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"three")[:-2])
    (tmp_path / "d.txt.zst").write_bytes(zstandard.compress(b"\xff"))
    (tmp_path / "e.bin.gz").write_bytes(gzip.compress(b"left out"))
    assert list(FileSource(tmp_path).documents()) == [
        Document("one\r\n", "a.py.gz"),
        Document("two", "b.md.zst"),
        Skipped("truncated gzip data", "c.txt.gz"),
        Skipped("wrong UTF-8", "d.txt.zst, byte 0"),
    ]


def test_a_format_by_name(tmp_path: Path) -> None:
    (tmp_path / "c4.json.gz").write_bytes(gzip.compress(JSONL))
    with pytest.raises(
        ValueError, match=r"c4.json.gz may hold one record a line .* format='jsonl'"
    ):
        FileSource(tmp_path / "c4.json.gz").shards()
    assert len(documents(FileSource(tmp_path / "c4.json.gz", format="jsonl"))) == 60
    assert len(documents(FileSource(tmp_path / "c4.json.gz", format="text"))) == 1
    with pytest.raises(ValueError, match="format='xml' is unknown; choose among text, jsonl, csv"):
        FileSource(tmp_path, format="xml")


@pytest.mark.parametrize("name", ["a.jsonl.xz", "a.tar.gz", "a.zip", "a.parquet.zst"])
def test_packing_that_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"is packed as|is parquet within zstd"):
        FileSource(tmp_path / name).shards()


def test_one_document_of_100_megabytes(tmp_path: Path) -> None:
    text = "0123456789" * 10_000_000
    lines = json.dumps({"text": "before"}) + "\n" + json.dumps({"text": text}) + "\n"
    (tmp_path / "a.jsonl").write_text(lines + json.dumps({"text": "behind"}))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress((tmp_path / "a.jsonl").read_bytes()))
    source = FileSource(tmp_path)
    assert len(source.shards()) == 3  # the large one is in two
    items = [item for item in source.documents() if isinstance(item, Document)]
    assert [len(item.text) for item in items] == [6, 100_000_000, 6] * 2
