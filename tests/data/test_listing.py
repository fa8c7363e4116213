"""Files elsewhere: read by URL like those on a disk."""

import functools
import gzip
import http.server
import json
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pile_lightning.data import Document, FileSource, Skipped, formats

LINES = b"".join(json.dumps({"text": f"text {i}"}).encode() + b"\n" for i in range(50))
TEXTS = [f"text {i}" for i in range(50)]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def write(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(LINES)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(LINES))
    pq.write_table(pa.table({"text": TEXTS}), folder / "d.parquet", row_group_size=20)
    (folder / "e.txt").write_text("alone")
    (folder / ".hidden.txt").write_text("left out")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Serve a folder as the plainest of servers does: it can neither seek nor tell a version."""
    write(tmp_path)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    write(tmp_path)
    fs = fsspec.filesystem("memory")
    for file in tmp_path.iterdir():
        fs.pipe(f"/bucket/{file.name}", file.read_bytes())
    yield "memory://bucket"
    fs.rm("/bucket", recursive=True)


def texts(source: FileSource, start: int = 0) -> list[str]:
    items = [item for shard in source.shards() for item in source.read(shard, start)]
    return [item.text for item in items if isinstance(item, Document)]


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.parquet"])
def test_over_http(web: str, name: str) -> None:
    source = pickle.loads(pickle.dumps(FileSource(f"{web}/{name}?download=true")))
    assert source.name == name[0]
    assert texts(source) == TEXTS
    assert texts(source, 33) == TEXTS[33:]
    assert source.fingerprint() == FileSource(f"{web}/{name}?download=true").fingerprint()


def test_a_folder_over_http(web: str) -> None:
    assert texts(FileSource(f"{web}/")) == TEXTS * 4 + ["alone"]
    assert texts(FileSource(f"{web}/*.jsonl*")) == TEXTS * 3


def test_the_fingerprint_follows_a_file_elsewhere(web: str, tmp_path: Path) -> None:
    source = FileSource(f"{web}/e.txt")
    before = source.fingerprint()
    (tmp_path / "e.txt").write_text("changed")
    assert source.fingerprint() != before


def test_damage_elsewhere(web: str, tmp_path: Path) -> None:
    content = (tmp_path / "b.jsonl.gz").read_bytes()
    (tmp_path / "b.jsonl.gz").write_bytes(content[:-30])
    *_, last = FileSource(f"{web}/b.jsonl.gz").documents()
    assert isinstance(last, Skipped)
    assert last.reason == "truncated gzip data"


def test_nothing_there(web: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no.txt' does not exist or"):
        FileSource(f"{web}/no.txt").shards()
    with pytest.raises(OSError, match=r"http://127.0.0.1:1/a.txt' does not .* Cannot connect"):
        FileSource("http://127.0.0.1:1/a.txt").shards()
    with pytest.raises(ValueError, match=r"cannot open URLs such as 'what://a'"):
        FileSource("what://a").shards()


def test_gone_while_reading(web: str, tmp_path: Path) -> None:
    source = FileSource(f"{web}/a.jsonl")
    shards = source.shards()
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(OSError, match=r"cannot read http://127.0.0.1:\d+/a.jsonl"):
        list(source.read(shards[0]))


def test_other_file_systems(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert texts(FileSource(memory)) == TEXTS * 4 + ["alone"]
    assert texts(FileSource(f"{memory}/[ab].jsonl*")) == TEXTS * 2
    assert FileSource(memory).name == "bucket"
    monkeypatch.setattr(formats, "RANGE_BYTES", 100)
    source = FileSource(f"{memory}/a.jsonl")
    assert len(source.shards()) > 5
    assert texts(source) == TEXTS


def test_the_name_of_a_folder_elsewhere_is_no_part_of_the_data(memory: str) -> None:
    fs = fsspec.filesystem("memory")
    names = [shard.name for shard in FileSource(memory).shards()]
    fs.mv("/bucket", "/other", recursive=True)
    assert [shard.name for shard in FileSource("memory://other").shards()] == names
    fs.mv("/other", "/bucket", recursive=True)


def test_a_local_file_by_url(tmp_path: Path) -> None:
    write(tmp_path)
    assert texts(FileSource(f"file://{tmp_path}/e.txt")) == ["alone"]
