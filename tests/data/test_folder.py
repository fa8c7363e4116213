"""Folders as they are: what cannot be read is counted and named, and nothing is read twice."""

import os
import socket
from pathlib import Path

import pytest

from pile_lightning.data import Document, FileSource, Skipped, StreamedText, TextData

needs_links = pytest.mark.skipif(os.name == "nt", reason="needs links and pipes")


def items(path: object) -> dict[str, str]:
    found = FileSource(str(path)).documents()
    return {item.name: "" if isinstance(item, Document) else item.reason for item in found}


@needs_links
def test_what_is_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "nowhere").symlink_to("/nowhere/at/all")
    (tmp_path / "a.txt").symlink_to("b.txt")
    (tmp_path / "b.txt").symlink_to("a.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "folder.txt" / "in.txt").write_text("in it")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("x")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
        server.bind("socket.txt")
        found = items(tmp_path)
    loop = "links that lead to each other"
    assert found == {
        "good.txt": "",
        "folder.txt/in.txt": "",
        "nowhere": "a link that leads nowhere",
        "a.txt": loop,
        "b.txt": loop,
        "zero.txt": "a device",
        "pipe.txt": "a pipe",
        "socket.txt": "a socket",
        "caf\\xe9.txt": "a name that is no UTF-8",
    }
    with pytest.raises(FileNotFoundError, match=r"pipe.txt' cannot be read \(a pipe\)"):
        FileSource(tmp_path / "pipe.txt").shards()


@needs_links
@pytest.mark.parametrize("pattern", ["", "/**/*.txt"])
def test_linked_folders_are_read_once(tmp_path: Path, pattern: str) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    (root / "sub").mkdir(parents=True)
    other.mkdir()
    (root / "sub" / "a.txt").write_text("a")
    (other / "b.txt").write_text("b")
    (root / "again").symlink_to("sub")
    for name in ("up", "sub/up", "sub/root"):
        (root / name).symlink_to(root if name.endswith("root") else tmp_path)
    (root / "other1").symlink_to(other)
    (root / "other2").symlink_to(other)
    assert sorted(items(f"{root}{pattern}")) == ["other1/b.txt", "sub/a.txt"]
    if not pattern:
        assert "2 a link to a folder around this one" in FileSource(root).left_out()


def test_what_is_not_read_is_told_by_suffix(tmp_path: Path) -> None:
    texts = ("README", "SHOUT.TXT", "page.html", "script.js", "a.md", "x[1].txt")
    for name in (*texts, "a.png", "b.png", "c.bin"):
        (tmp_path / name).write_text(f"text of {name}")
    (tmp_path / "program").write_bytes(b"\x7fELF\0\0")
    assert set(items(tmp_path)) == set(texts)
    expected = "2 .png, 1 .bin (c.bin), 1 without a suffix (program)"
    assert FileSource(tmp_path).left_out() == expected
    data = TextData(str(tmp_path), tokenizer="byte", cache_dir=str(tmp_path / ".cache"))
    data.prepare_data()
    assert data.store.remarks() == [f"not read in {tmp_path.name!r}: {expected}"]


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), PermissionError(13, "no")])
def test_a_file_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}')
    source = FileSource(tmp_path)
    (shard,) = source.shards()

    def fail(*args: object, **more: object) -> None:
        raise error

    monkeypatch.setattr("builtins.open", fail)
    (skipped,) = source.read(shard)
    assert isinstance(skipped, Skipped)
    assert skipped.name == "a.jsonl"
    with pytest.raises(type(error), match=error.strerror):
        list(source.read(shard, 1))


def test_utf_16_is_read(tmp_path: Path) -> None:
    text = "caf\u00e9 \U0001f600\n"
    (tmp_path / "a.txt").write_bytes(text.encode("utf-16"))
    (tmp_path / "b.jsonl").write_bytes(b"\xfe\xff" + '{"text": "b"}\n'.encode("utf-16-be"))
    documents = list(FileSource(tmp_path).documents())
    assert documents == [Document(text, "a.txt"), Document("b", "b.jsonl:1")]


def test_an_error_says_what_was_counted(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    data = TextData(str(tmp_path), tokenizer="byte", cache_dir=str(tmp_path / ".cache"))
    with pytest.raises(ValueError, match=r"hold no text(.|\n)*1 x wrong UTF-8: latin.txt"):
        data.prepare_data()


def test_a_stream_goes_on_after_its_files_were_copied(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i}.txt").write_text(f"number {i} " * 30)

    def stream() -> StreamedText:
        settings = {"tokenizer": "byte", "seq_len": 32, "batch_size": 4, "num_lanes": 4}
        data = StreamedText(str(folder), cache_dir=str(tmp_path / "cache"), **settings)
        data.prepare_data()
        return data

    first = stream()
    rows = iter(first.train_dataloader())
    for _ in range(3):
        next(rows)
    state = first.state_dict()
    for file in folder.iterdir():
        os.utime(file, (1e9, 1e9))
    copied = stream()
    copied.load_state_dict(state)
    copied.train_dataloader()
    (folder / "3.txt").write_text("numbEr 3 " * 30)
    changed = stream()
    changed.load_state_dict(state)
    with pytest.raises(ValueError, match="content: "):
        changed.train_dataloader()
