"""Lines of records: only what is bad in itself is lost, and its line is told."""

import json
from pathlib import Path

import pytest

from pile_lightning.data import Document, FileSource, Skipped

GOOD = b'{"text": "good"}'
BAD = {
    b'{"text": "broken': "broken JSON",
    b'{"text": "two"} {"text": "objects"}': "broken JSON",
    b"\0\0\0\0": "broken JSON",
    b"[" * 100_000: "broken JSON",
    b'{"text": "\xff"}': "wrong UTF-8",
    b'{"text": "\xed\xa0\x80"}': "wrong UTF-8",
    b'{"text": "\\ud800"}': "a lone surrogate",
    b'{"text": "a", "of": {"name": "\\udfff"}}': "a lone surrogate",
    b'"text"': "not a JSON object",
    b"5": "not a JSON object",
    b'{"other": "x"}': "no field 'text'",
    b'{"text": 5}': "field 'text' is not a string",
    b'{"text": null}': "empty text",
    b'{"text": "two"}\r{"text": "lines"}': "broken JSON, lines end in CR alone",
    b'{"text": ["a"]}': "field 'text' is not a string",
    b'{"text": ""}': "empty text",
    b'{"text": "a", "of": {}}': "no field 'of.name'",
    b'{"text": "a", "of": "b"}': "no field 'of.name'",
    b'{"text": "a", "of": {"name": null}}': "field 'of.name' names no domain",
    b'{"text": "a", "of": {"name": ""}}': "field 'of.name' names no domain",
}
WITH_DOMAIN = b'{"text": "good", "of": {"name": "x"}}'


def read(tmp_path: Path, content: bytes, **options: str) -> list[Document | Skipped]:
    (tmp_path / "a.jsonl").write_bytes(content)
    return list(FileSource(tmp_path / "a.jsonl", **options).documents())


@pytest.mark.parametrize("bad", BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_a_bad_line_is_told_and_costs_no_other(tmp_path: Path, bad: bytes) -> None:
    options = {"domain_key": "of.name"} if b'"of"' in bad else {}
    good, document = (WITH_DOMAIN, "x") if options else (GOOD, None)
    assert read(tmp_path, b"\n".join([good, bad, good]), **options) == [
        Document("good", "a.jsonl:1", document),
        Skipped(BAD[bad], "a.jsonl:2"),
        Document("good", "a.jsonl:3", document),
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'\xef\xbb\xbf{"text": "marked"}', "marked"),
        (b'{"text": "one\xe2\x80\xa8two\xc2\x85three\\u2028"}', "one\u2028two\u0085three\u2028"),
        (b'{"text": "a\\u0000b"}', "a\0b"),
        (b'{"text": "\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"text": "x", "score": NaN}', "x"),
        (b'{"text": "x", "note": "\\ud800"}', "x"),
        (b'{"text": "x", "large": 123456789012345678901234567890}', "x"),
        (b'{"text": "first", "text": "last"}', "last"),
        (b' \t{"text": "x"} \r', "x"),
        (b'{"text": " "}', " "),
    ],
)
def test_what_is_odd_but_good(tmp_path: Path, line: bytes, text: str) -> None:
    assert read(tmp_path, line + b"\n\n \r\n" + GOOD + b"\n") == [
        Document(text, "a.jsonl:1"),
        Document("good", "a.jsonl:4"),
    ]


@pytest.mark.parametrize("content", [b"", b"\n", b"\n \r\n\n"])
def test_a_file_without_records(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == []


def test_dotted_keys(tmp_path: Path) -> None:
    record = {"a.b": "itself", "a": {"b": "inner", "c": {"d": "deep"}}, "n": 7}
    line = json.dumps(record).encode()
    for key, text in {"a.b": "itself", "a.c.d": "deep"}.items():
        assert read(tmp_path, line, text_key=key, domain_key="n") == [
            Document(text, "a.jsonl:1", "7")
        ]


def test_the_pile_as_it_is(tmp_path: Path) -> None:
    names = ["ArXiv", "Pile-CC", "Github"]
    records = [{"text": f"{i}", "meta": {"pile_set_name": names[i % 3]}} for i in range(9)]
    content = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    items = read(tmp_path, content, domain_key="meta.pile_set_name")
    assert [item.domain for item in items if isinstance(item, Document)] == names * 3
