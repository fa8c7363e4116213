"""Compressed streams: all that is there, and a word where something is missing."""

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from pile_lightning.data import Document, FileSource, Skipped
from pile_lightning.data.compression import CODECS, Damage, decompress


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstd}
LINES = [
    json.dumps({"text": f"{i} " + random.Random(i).randbytes(40).hex()}).encode() + b"\n"
    for i in range(9000)
]
NAMES = {".gz": "gzip", ".zst": "zstd"}


@pytest.fixture(params=[".gz", ".zst"])
def suffix(request: pytest.FixtureRequest) -> str:
    return request.param


def read(suffix: str, data: bytes) -> tuple[bytes, list[str]]:
    parts = list(decompress(io.BytesIO(data), CODECS[suffix]))
    text = b"".join(part for part in parts if isinstance(part, bytes))
    return text, [part.reason for part in parts if isinstance(part, Damage)]


def items(tmp_path: Path, suffix: str, data: bytes) -> list[Document | Skipped]:
    (tmp_path / f"a.jsonl{suffix}").write_bytes(data)
    source = FileSource(tmp_path / f"a.jsonl{suffix}")
    found = list(source.documents())
    start = len(found) // 2
    assert list(source.read(source.shards()[0], start)) == found[start:]
    return found


def test_members_and_padding(suffix: str) -> None:
    compress = COMPRESS[suffix]
    data = compress(b"one ") + compress(b"") + compress(b"two ") + bytes(9000) + compress(b"three")
    assert read(suffix, data) == (b"one two three", [])
    if suffix == ".zst":  # a frame to be skipped, as parallel compressors write
        assert read(suffix, b"\x50\x2a\x4d\x18\x02\0\0\0ab" + data) == (b"one two three", [])


def test_cut_anywhere_it_is_noticed(suffix: str) -> None:
    data = COMPRESS[suffix](b"first line\nsecond line") * 2
    whole = b"first line\nsecond line" * 2
    for end in range(len(data)):
        text, damage = read(suffix, data[:end])
        assert whole.startswith(text)
        cut_between = end == len(data) // 2
        assert damage == ([] if cut_between else [f"truncated {NAMES[suffix]} data"])


def test_every_record_before_a_cut(tmp_path: Path, suffix: str) -> None:
    data = COMPRESS[suffix](b"".join(LINES))
    found = items(tmp_path, suffix, data[: len(data) // 2])
    *before, last = found
    assert len(before) > 3000
    assert [json.loads(line)["text"] for line in LINES[: len(before)]] == [
        item.text for item in before if isinstance(item, Document)
    ]
    place = f"a.jsonl{suffix}:{len(before) + 1}"
    assert last == Skipped(f"truncated {NAMES[suffix]} data", place)


def test_a_record_that_is_whole_when_the_cut_comes(tmp_path: Path, suffix: str) -> None:
    data = COMPRESS[suffix](b'{"text": "one"}\n{"text": "two"}')
    found = items(tmp_path, suffix, data[:-2])
    assert [item.name for item in found] == [f"a.jsonl{suffix}:{line}" for line in (1, 2, 2)]
    assert [item.text for item in found if isinstance(item, Document)] == ["one", "two"]


@pytest.mark.parametrize("at", [0.3, 0.6, 0.99])
def test_every_record_before_damage_and_of_the_members_behind(
    tmp_path: Path, suffix: str, at: float
) -> None:
    compress = COMPRESS[suffix]
    parts = [b"".join(LINES[i : i + 3000]) for i in (0, 3000, 6000)]
    first, second, third = map(compress, parts)
    broken = bytearray(second)
    where = int(at * len(second))
    broken[where : where + 64] = bytes(64)
    found = items(tmp_path, suffix, first + bytes(broken) + third)
    texts = [item.text for item in found if isinstance(item, Document)]
    expected = [json.loads(line)["text"] for line in LINES]
    assert texts[:3000] == expected[:3000]
    assert texts[-3000:] == expected[-3000:]
    reasons = {item.reason for item in found if isinstance(item, Skipped)}
    assert f"corrupt {NAMES[suffix]} data" in reasons
    if suffix == ".zst":  # by blocks: what is decompressed is right
        assert set(texts) <= set(expected)


def test_a_wrong_checksum_costs_no_record(tmp_path: Path, suffix: str) -> None:
    data = bytearray(COMPRESS[suffix](b"".join(LINES[:50])))
    data[-5 if suffix == ".gz" else -1] ^= 1
    *documents, last = items(tmp_path, suffix, bytes(data))
    assert len(documents) == 50
    assert last == Skipped(f"corrupt {NAMES[suffix]} data", f"a.jsonl{suffix}:51")


def test_what_is_not_compressed(tmp_path: Path, suffix: str) -> None:
    name = NAMES[suffix]
    found = items(tmp_path, suffix, b"".join(LINES[:2]))
    assert found == [Skipped(f"corrupt {name} data", f"a.jsonl{suffix}:1")]
    assert items(tmp_path, suffix, b"") == [Skipped(f"truncated {name} data", f"a.jsonl{suffix}:1")]


def test_a_window_of_the_long_mode(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    data = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = data.compress(b"".join(LINES[:9])) + data.flush()
    assert len(items(tmp_path, ".zst", content)) == 9
