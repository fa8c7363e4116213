"""Sources: every document once and in order, and a clear word about what is none."""

import json
import os
import shutil
from pathlib import Path

import pytest

from pile_lightning.data import Document, FileSource, Skipped, StandardLibrary
from pile_lightning.data.policy import BadInput
from pile_lightning.data.sources import as_sources


def write(folder: Path, **files: bytes | str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def names(source: FileSource | StandardLibrary) -> list[str]:
    return [document.name for document in source.documents()]


def test_a_folder_is_read_in_order_and_whole(tmp_path: Path) -> None:
    write(
        tmp_path,
        b_dot_md="2",
        a__z_dot_py="1",
        c_dot_txt="3\r\n",
        d_dot_bin="no",
        _dot_git__x_dot_txt="no",
        a___dot_hidden_dot_txt="no",
    )
    documents = list(FileSource(tmp_path).documents())
    assert documents == [Document("1", "a/z.py"), Document("2", "b.md"), Document("3\r\n", "c.txt")]


def test_one_file_and_a_glob_are_read_whatever_their_suffix(tmp_path: Path) -> None:
    write(tmp_path, a__x_dot_rst="1", b__y_dot_rst="2", b__y_dot_txt="3")
    assert names(FileSource(tmp_path / "a/x.rst")) == ["x.rst"]
    assert names(FileSource(f"{tmp_path}/**/*.rst")) == ["a/x.rst", "b/y.rst"]


def test_names_of_domains(tmp_path: Path) -> None:
    write(tmp_path, books__a_dot_txt="1")
    assert FileSource(tmp_path / "books").name == "books"
    assert FileSource(tmp_path / "books/a.txt").name == "a"
    assert FileSource(f"{tmp_path}/books/*.txt").name == "books"
    assert FileSource(tmp_path, name="mine").name == "mine"


def test_a_name_with_brackets_is_no_glob(tmp_path: Path) -> None:
    write(tmp_path, **{"data[1]__a_dot_txt": "1"})
    assert names(FileSource(tmp_path / "data[1]")) == ["a.txt"]


def test_lines_of_jsonl(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": "one\u2028still one"}, ensure_ascii=False).encode(),
        b"",
        b'{"text": "broken',
        b'{"text": "\xff"}',
        b'["text"]',
        b'{"other": "x"}',
        b'{"text": 5}',
        b'{"text": ""}',
        b'{"text": "last"}',
        b'{"text": "really"}',
        b'{"text": "the last"}',
    ]
    write(tmp_path, a_dot_jsonl=b"\xef\xbb\xbf" + b"\n".join(lines))
    assert list(FileSource(tmp_path).documents()) == [
        Document("one\u2028still one", "a.jsonl:1"),
        Skipped("broken JSON", "a.jsonl:3"),
        Skipped("wrong UTF-8", "a.jsonl:4"),
        Skipped("not a JSON object", "a.jsonl:5"),
        Skipped("no field 'text'", "a.jsonl:6"),
        Skipped("field 'text' is not a string", "a.jsonl:7"),
        Skipped("empty text", "a.jsonl:8"),
        Document("last", "a.jsonl:9"),
        Document("really", "a.jsonl:10"),
        Document("the last", "a.jsonl:11"),
    ]


def test_files_that_are_no_text(tmp_path: Path) -> None:
    write(tmp_path, a_dot_txt=b"ab\xff", b_dot_txt="", c_dot_txt=b"\xef\xbb\xbfmarked")
    assert list(FileSource(tmp_path).documents()) == [
        Skipped("wrong UTF-8", "a.txt, byte 2"),
        Skipped("empty text", "b.txt"),
        Document("marked", "c.txt"),
    ]


@pytest.mark.parametrize("records", [3, 1500])
def test_a_wrong_text_key_lists_the_keys(tmp_path: Path, records: int) -> None:
    write(tmp_path, a_dot_jsonl='{"content": "x", "id": 1}\n' * records)
    bad = BadInput(source="x")
    with pytest.raises(ValueError, match=r"have no field 'text'; they have 'content', 'id': set"):
        list(bad.documents(FileSource(tmp_path).documents()))
    assert bad.num_records == min(records, 1000)
    assert len(names(FileSource(tmp_path, text_key="content"))) == records


def test_nothing_to_read(tmp_path: Path) -> None:
    write(tmp_path, a_dot_pdf="x")
    with pytest.raises(
        FileNotFoundError, match=r"nowhere' does not exist .*; give a file, a folder"
    ):
        list(FileSource(tmp_path / "nowhere").documents())
    with pytest.raises(FileNotFoundError, match=r"no file to read: .*it holds files of \.pdf; add"):
        list(FileSource(tmp_path).documents())
    with pytest.raises(FileNotFoundError, match=r"\*\.txt' holds no file to read"):
        list(FileSource(f"{tmp_path}/*.txt").documents())


def test_the_fingerprint_follows_the_files_and_not_the_place(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", a_dot_txt="1", b_dot_txt="2")
    before = FileSource(folder).fingerprint()
    moved = Path(shutil.move(folder, tmp_path / "two"))
    assert FileSource(moved).fingerprint() == before
    assert FileSource(moved, text_key="other").fingerprint() != before
    os.utime(moved / "a.txt", ns=(0, 0))
    touched = FileSource(moved).fingerprint()
    (moved / "a.txt").rename(moved / "c.txt")
    assert len({before, touched, FileSource(moved).fingerprint()}) == 3


def test_the_standard_library_without_its_tests() -> None:
    library = StandardLibrary()
    documents = list(library.documents())
    assert {"os.py", "json/decoder.py"} <= {document.name for document in documents}
    parts = {part for document in documents for part in document.name.split("/")}
    assert not parts & {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    assert not [d for d in documents if isinstance(d, Skipped) and d.reason != "empty text"]
    assert library.num_bytes() > 5_000_000
    assert library.fingerprint() == StandardLibrary().fingerprint()


def test_sources_as_a_user_writes_them(tmp_path: Path) -> None:
    made = as_sources(["stdlib", str(tmp_path), FileSource(tmp_path, name="again")])
    assert [source.name for source in made] == ["stdlib", tmp_path.name, "again"]
    assert as_sources("stdlib") == (StandardLibrary(),)


def test_sources_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2 sources are named 'x', .* name=\.\.\."):
        as_sources([str(tmp_path / "x"), str(tmp_path / "y/x")])
    with pytest.raises(ValueError, match=r"sources=\[\] names no text"):
        as_sources([])
