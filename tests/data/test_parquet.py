"""Parquet: rows of any text column, and damage that costs its own rows only."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pile_lightning.data import Document, FileSource, Skipped
from pile_lightning.data.policy import BadInput


def write(path: Path, columns: dict[str, Any], **options: Any) -> FileSource:
    pq.write_table(pa.table(columns), path / "a.parquet", **options)
    return FileSource(path / "a.parquet")


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b"], pa.string()),
        pa.array(["a", "b"], pa.large_string()),
        pa.array([b"a", b"b"], pa.binary()),
        pa.array(["a", "b"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type)[:10],
)
def test_types_of_text(tmp_path: Path, column: pa.Array) -> None:
    assert list(write(tmp_path, {"text": column}).documents()) == [
        Document("a", "a.parquet, row 0"),
        Document("b", "a.parquet, row 1"),
    ]


def test_rows_that_are_no_text(tmp_path: Path) -> None:
    wrong = pa.array([b"good", b"\xff", b"", None]).view(pa.string())
    assert list(write(tmp_path, {"text": wrong}).documents()) == [
        Document("good", "a.parquet, row 0"),
        Skipped("wrong UTF-8", "a.parquet, row 1"),
        Skipped("empty text", "a.parquet, row 2"),
        Skipped("empty text", "a.parquet, row 3"),
    ]
    wrong = pa.array([b"\xff"], pa.binary())
    assert [item.reason for item in write(tmp_path, {"text": wrong}).documents()] == ["wrong UTF-8"]
    numbers = list(write(tmp_path, {"text": [1, 2]}).documents())
    assert [item.reason for item in numbers] == ["field 'text' is not a string"] * 2


def test_a_wrong_column_lists_the_columns(tmp_path: Path) -> None:
    source = write(tmp_path, {"content": ["a"] * 30, "id": [1] * 30}, row_group_size=7)
    with pytest.raises(ValueError, match=r"30 of 30 .* they have 'content', 'id': set text_key"):
        list(BadInput().documents(source.documents()))
    source = FileSource(source.path, text_key="content", domain_key="id")
    assert next(source.documents()) == Document("a", "a.parquet, row 0", "1")


def test_no_rows(tmp_path: Path) -> None:
    assert list(write(tmp_path, {"text": pa.array([], pa.string())}).documents()) == []


def test_a_damaged_group_costs_its_own_rows(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(3000)]
    options = {"row_group_size": 1000, "use_dictionary": False, "compression": "none"}
    source = write(tmp_path, {"text": texts}, write_page_checksum=True, **options)
    path = tmp_path / "a.parquet"
    content = bytearray(path.read_bytes())
    content[content.find(b"text 1500")] ^= 1
    path.write_bytes(content)
    items = list(source.documents())
    good = [item.text for item in items if isinstance(item, Document)]
    assert good == texts[:1000] + texts[2000:]
    skipped = [item for item in items if isinstance(item, Skipped)]
    assert len(skipped) == 1000
    assert skipped[0] == Skipped("damaged parquet row group", "a.parquet, row 1000")
    shard = source.shards()[0]
    for start in (0, 999, 1000, 1500, 2000, 2999, 3000):
        assert list(source.read(shard, start)) == items[start:]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(40) + b"PAR1", b"junk" * 99])
def test_what_is_not_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    source = FileSource(tmp_path)
    assert list(source.documents()) == [Skipped("no readable parquet footer", "a.parquet")]
    assert list(source.read(source.shards()[0], 1)) == []
