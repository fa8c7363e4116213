"""Files that are small and hold much, and files that lie: little memory, and one clear error."""

import gzip
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pile_lightning.data import Document, FileSource, Skipped, StreamedText, TextData, Tokenizer
from pile_lightning.data.policy import BadInput

TOO_LARGE = "a record of more than max_record_bytes=1,000"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
LINES = [b'{"text": "one"}', b'{"text": "' + b"a" * 5000 + b'"}', b"", b'{"text": "two"}']


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_is_too_long_costs_itself_alone(
    tmp_path: Path, suffix: str, end: bytes
) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(COMPRESS[suffix](b"\n".join([*LINES, LINES[1]]) + end))
    source = FileSource(path, max_record_bytes=1000)
    items = list(source.documents())
    assert items == [
        Document("one", f"{path.name}:1"),
        Skipped(TOO_LARGE, f"{path.name}:2"),
        Document("two", f"{path.name}:4"),
        Skipped(TOO_LARGE, f"{path.name}:5"),
    ]
    for start in range(5):
        assert list(source.read(source.shards()[0], start)) == items[start:]
    assert len(list(FileSource(path).documents())) == 4


def test_a_line_that_is_too_long_in_ranges_of_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(LINES * 5))
    source = FileSource(path, max_record_bytes=1000)
    for num_bytes in (40, 900, 7000):
        parts = source.divide(source.shards()[0], num_bytes)
        items = [item for part in parts for item in source.read(part)]
        assert [item.text for item in items if isinstance(item, Document)] == ["one", "two"] * 5
        assert [item.name for item in items if isinstance(item, Skipped)] == [
            f"a.jsonl:{line}" for line in (2, 6, 10, 14, 18)
        ]


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_text_file_is_a_record(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESS[suffix](b"a" * 1001))
    source = FileSource(path, max_record_bytes=1000)
    assert list(source.documents()) == [Skipped(TOO_LARGE, path.name)]
    assert [item.text for item in FileSource(path, max_record_bytes=1001).documents()] == [  # type: ignore[union-attr]
        "a" * 1001
    ]


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_row_that_is_too_large(tmp_path: Path, dictionary: bool) -> None:
    texts = pa.array(["one", "a" * 5000, "two"])
    column = texts.dictionary_encode() if dictionary else texts
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    assert list(FileSource(tmp_path, max_record_bytes=1000).documents()) == [
        Document("one", "a.parquet, row 0"),
        Skipped(TOO_LARGE, "a.parquet, row 1"),
        Document("two", "a.parquet, row 2"),
    ]


def test_documents_of_ones_own() -> None:
    bad = BadInput(max_record_bytes=8)
    texts = ["12345678", "123456789", "\u4e2d\u4e2d", "\u4e2d\u4e2d\u4e2d"]
    kept = [d.text for d in bad.documents(Document(t, f"{i}") for i, t in enumerate(texts))]
    assert kept == [texts[0], texts[2]]
    assert bad.places == {"a record of more than max_record_bytes=8": ["1", "3"]}


def test_keys_of_bad_records_do_not_pile_up() -> None:
    from pile_lightning.data.readers import MissingField

    bad = BadInput()
    for i in range(100):
        bad.count(MissingField("no field 'text'", "a", tuple(f"{i} {k}" for k in range(500))))
    assert len(bad.keys) < 3000
    bad.count(MissingField("no field 'text'", "a", ("k" * 10**6,)))
    assert max(map(len, bad.keys)) <= 100


@pytest.mark.parametrize("kind", [TextData, StreamedText])
def test_the_only_record_is_named(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.jsonl.zst").write_bytes(COMPRESS[".zst"](LINES[1]))
    settings = {"tokenizer": "byte", "cache_dir": str(tmp_path), "num_proc": 1}
    for fraction, shown in ((0.001, "hold no text" if kind is TextData else ""), (0, "")):
        data = kind(
            str(tmp_path / "text"), max_record_bytes=1000, max_bad_fraction=fraction, **settings
        )
        if fraction == 0 or shown:
            with pytest.raises(ValueError, match=rf"{shown}[\s\S]*{TOO_LARGE}: a\.jsonl\.zst:1"):
                data.prepare_data()
    with pytest.raises(ValueError, match="max_record_bytes=0 is too small; choose 1 or more"):
        kind(max_record_bytes=0)


def test_another_limit_is_other_data(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text " * 100)
    paths = {
        TextData(str(tmp_path), tokenizer="byte", max_record_bytes=limit).store_path
        for limit in (10, 1000)
    }
    assert len(paths) == 2
    own = FileSource(tmp_path, max_record_bytes=7)
    assert TextData(own, tokenizer="byte").sources[0].record_limit == 7


READ = """
import resource, sys
from pile_lightning.data import FileSource, Skipped
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
items = 0
for item in FileSource(sys.argv[1], max_record_bytes=10_000_000).documents():
    items += 1
    last = item
    if items == 200:
        break
print(items, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, last)
"""


def bomb(path: Path, kind: str) -> Path:
    if kind == "parquet":
        large = pa.DictionaryArray.from_arrays(
            pa.array([0] * 200, pa.int32()), pa.array(["a" * (9 << 20)])
        )
        pq.write_table(pa.table({"text": large}), path / "a.parquet", compression="zstd")
        return path / "a.parquet"
    piece = b"\n" * (1 << 20) if kind == "lines" else b"a" * (1 << 20)
    name = path / ("a.txt.zst" if kind == "text" else "a.jsonl.zst")
    with name.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as writer:
        for _ in range(1000 if kind != "lines" else 5):
            writer.write(piece)
    return name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["line", "lines", "text", "parquet"])
def test_memory_stays_small(tmp_path: Path, kind: str) -> None:
    path = bomb(tmp_path, kind)
    assert path.stat().st_size < 100_000
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, timeout=300
    )
    if kind == "lines":
        assert "last" in done.stderr  # nothing was read
        return
    items, megabytes, _ = done.stdout.split(" ", 2)
    assert int(megabytes) < 600, done.stdout
    assert int(items) == (200 if kind == "parquet" else 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "broken JSON"),
        (b'{"text": "a", "n": ' + b"9" * 100_000 + b"}", None),
        (b'{"text": "a", "n": 1e999999}', None),
        (b"[" * 100_000, "broken JSON"),
        (b'{"a":' * 100_000, "broken JSON"),
    ],
)
def test_deep_nesting_and_large_numbers(tmp_path: Path, line: bytes, reason: str | None) -> None:
    (tmp_path / "a.jsonl").write_bytes(line + b'\n{"text": "two"}\n')
    first, second = FileSource(tmp_path).documents()
    assert second == Document("two", "a.jsonl:2")
    if reason:
        assert first == Skipped(reason, "a.jsonl:1")


WORDS = {"type": "WordLevel", "vocab": {"a": 0, "<unk>": 1}, "unk_token": "<unk>"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "Expecting value"),
        ("[]", "no object but a list"),
        ("3", "no object but a int"),
        ("null", "no object but a NoneType"),
        ("[" * 100_000, "recursion"),
        ('{"a":' * 100_000, "recursion"),
        ("{}", ""),
        ('{"model": {"type": "None"}}', ""),
        (json.dumps({"model": WORDS | {"vocab": {"a": 3_000_000_000, "<unk>": 1}}}), "3,000,000"),
        ("\udcff", "codec"),
    ],
)
def test_a_tokenizer_that_is_none_is_one_line(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(
        ValueError, match=r"tokenizer.json is no tokenizer.json that can be read"
    ) as e:
        Tokenizer.load(path)
    assert "\n" not in str(e.value)
    assert any(word in str(e.value) for word in told.split("|"))


def lying_footer(path: Path, num_rows: int) -> FileSource:
    """Write a file of one group that claims as many rows as a varint of ten bytes can say."""
    pq.write_table(pa.table({"text": ["a"] * 1000}), path / "a.parquet", compression="none")
    content = bytearray((path / "a.parquet").read_bytes())
    (size,) = struct.unpack("<I", content[-8:-4])
    footer = bytes(content[-8 - size : -8])
    old, new = _zigzag(1000), _zigzag(num_rows)
    footer = footer.replace(b"\x16" + old, b"\x16" + new)
    content[-8 - size :] = footer + struct.pack("<I", len(footer)) + b"PAR1"
    (path / "a.parquet").write_bytes(content)
    return FileSource(path / "a.parquet")


def _zigzag(number: int) -> bytes:
    number, out = number << 1, bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def test_a_footer_that_claims_any_number_of_rows_ends(tmp_path: Path) -> None:
    source = lying_footer(tmp_path, 1 << 60)
    count = documents = 0
    for item in source.documents():
        count += 1
        documents += isinstance(item, Document)
    assert count <= 1_001_000
    with pytest.raises(ValueError, match=r"a\.parquet"):
        list(BadInput().documents(lying_footer(tmp_path, 1 << 60).documents()))
