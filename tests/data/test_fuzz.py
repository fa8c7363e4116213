"""Mutated files: rows or a reason with its place, never a crash, a hang or a silent loss."""

import gzip
import io
import json
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pile_lightning.data import Document, FileSource, Skipped, formats

RECORDS = [
    {"text": f"{i} \u4e2d\u2028 {random.Random(i).randbytes(i % 50).hex()}\n", "in": {"set": "x"}}
    for i in range(120)
]
LINES = [json.dumps(record, ensure_ascii=i % 2 == 0).encode() for i, record in enumerate(RECORDS)]
MEMBERS = [b"".join(line + b"\n" for line in LINES[i : i + 30]) for i in range(0, 120, 30)]
ZSTD = zstandard.ZstdCompressor(write_checksum=True)


def parquet() -> bytes:
    file = io.BytesIO()
    table = pa.Table.from_pylist(RECORDS)
    pq.write_table(table, file, row_group_size=30, write_page_checksum=True)
    return file.getvalue()


FILES: dict[str, list[bytes]] = {
    "a.jsonl": [line + b"\n" for line in LINES],
    "a.jsonl.gz": [gzip.compress(member, mtime=0) for member in MEMBERS],
    "a.jsonl.zst": [ZSTD.compress(member) for member in MEMBERS],
    "a.parquet": [parquet()],
    "a.txt": [MEMBERS[0]],
    "a.txt.gz": [gzip.compress(MEMBERS[0], mtime=0)],
    "a.md.zst": [ZSTD.compress(MEMBERS[0])],
}


def mutated(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    at, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    near = min(end, at + chance.randrange(1, 40))
    kind = chance.randrange(7)
    if kind == 0:
        for _ in range(chance.choice([1, 1, 1, 2, 10])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        junk = chance.choice(
            [chance.randbytes(30), bytes(30), b"\n", b'"', b"}\n{", b"\xef\xbb\xbf"]
        )
        data[at:at] = junk
    elif kind == 3:
        data = data[at:] + data[:at]
    elif kind == 4:
        data[at:near] = bytes(near - at)
    elif kind == 5:
        del data[at:near]
    else:
        data += data[at:end]
    return bytes(data)


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"reading took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def reference(content: bytes) -> tuple[list[str], list[int]]:
    """Return the good texts of lines, and the numbers of the others, as another reader does."""
    texts, bad = [], []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig"))
            text, domain = record["text"], record["in"]["set"]
            f"{text}{domain}".encode()
            good = isinstance(text, str) and text and isinstance(domain, str | int) and domain != ""
        except (ValueError, TypeError, KeyError):
            good = False
        if good:
            texts.append(text)
        else:
            bad.append(number)
    return texts, bad


def check(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    name, members = list(FILES.items())[seed % len(FILES)]
    content = mutated(b"".join(members), chance)
    (folder / name).write_bytes(content)
    source = FileSource(folder / name, domain_key="in.set")
    shards = source.shards()
    with no_longer_than(20):
        whole = [list(source.read(shard)) for shard in shards]
        for shard, found in zip(shards, whole, strict=True):
            start = chance.randrange(len(found) + 1)
            assert list(source.read(shard, start)) == found[start:]
    items = [item for found in whole for item in found]
    assert all(isinstance(item, Document | Skipped) for item in items)
    assert all(item.name.startswith(name) and item[0] for item in items)
    texts = [item.text for item in items if isinstance(item, Document)]
    assert all(text.encode() for text in texts)

    if name == "a.jsonl":
        skipped = [int(item.name.split(":")[1]) for item in items if isinstance(item, Skipped)]
        assert (texts, skipped) == reference(content)
    elif ".jsonl" in name:
        untouched = end = 0
        for member in members:
            end += len(member)
            untouched += 30 * (content[:end] == b"".join(members)[:end])
        originals = [str(record["text"]) for record in RECORDS]
        assert texts[:untouched] == originals[:untouched]
        if not set(originals) <= set(texts):
            ends = [sum(map(len, members[:i])) for i in range(1, 4)]
            assert len(texts) < len(items) or len(content) in ends
    elif name == "a.parquet":
        originals = [str(record["text"]) for record in RECORDS]
        assert set(texts) <= set(originals)
        assert texts == originals or len(texts) < len(items)
    else:
        assert len(items) == 1


@pytest.mark.parametrize("range_bytes", [64 << 20, 500])
@pytest.mark.parametrize("part", range(4))
def test_mutated_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, range_bytes: int, part: int
) -> None:
    monkeypatch.setattr(formats, "RANGE_BYTES", range_bytes)
    for seed in range(part * 28, part * 28 + 28):
        check(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_two_thousand_mutated_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(formats, "RANGE_BYTES", 500 if part % 2 else 64 << 20)
    for seed in range(1000 + part * 100, 1100 + part * 100):
        check(tmp_path, seed)
