"""Tables: a document a row; a broken row costs itself alone."""

from pathlib import Path

import pytest

from pile_lightning.data import Document, FileSource, Skipped
from pile_lightning.data.policy import BadInput


def read(tmp_path: Path, content: bytes, name: str = "a.csv", **options: str) -> list[object]:
    (tmp_path / name).write_bytes(content)
    return list(FileSource(tmp_path / name, **options).documents())


def test_rows_are_documents(tmp_path: Path) -> None:
    rows = [
        b"\xef\xbb\xbfid,text\r",
        b'1,"two\r',
        b'lines, ""quoted"""\r',
        b"\r",
        b"2,\xff",
        b"3",
        b'4,"a"b',
        b"5,",
        b"6," + b"x" * 200_000,
        b'7,"never closed',
        b"8,lost",
    ]
    assert read(tmp_path, b"\n".join(rows)) == [
        Document('two\r\nlines, "quoted"', "a.csv:2"),
        Skipped("wrong UTF-8", "a.csv:5"),
        Skipped("not as many fields as the header", "a.csv:6"),
        Skipped("broken CSV", "a.csv:7"),
        Skipped("empty text", "a.csv:8"),
        Document("x" * 200_000, "a.csv:9"),
        Skipped("a quote that is never closed", "a.csv:10"),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", b"id\ttext\n1\tone\n2\ttwo\n"),
        ("a.csv", b"id;text\n1;one\n2;two\n"),
        ("a.csv", b"id,text\r1,one\r2,two\r"),
        ("a.csv", b"story\none\ntwo\n"),
        ("a.csv", "id,text\r\n1,one\r\n2,two".encode("utf-16")),
    ],
)
def test_kinds_of_tables(tmp_path: Path, name: str, content: bytes) -> None:
    texts = [item.text for item in read(tmp_path, content, name) if isinstance(item, Document)]
    assert texts == ["one", "two"]


def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path) -> None:
    (skipped,) = read(tmp_path, b"a,b\n1,2\n")
    assert isinstance(skipped, Skipped)
    with pytest.raises(ValueError, match=r"no field 'text'; they have 'a', 'b': set text_key"):
        list(BadInput(source="a").documents([skipped]))
    assert read(tmp_path, b"a,b\n1,2\n", text_key="b") == [Document("2", "a.csv:2")]


def test_reading_goes_on_at_a_row(tmp_path: Path) -> None:
    read(tmp_path, b'id,text\n1,"one\nline"\n2\n3,three\n')
    source = FileSource(tmp_path / "a.csv")
    (shard,) = source.shards()
    whole = list(source.read(shard))
    assert [list(source.read(shard, start)) for start in range(4)] == [whole[i:] for i in range(4)]
