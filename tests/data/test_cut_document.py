"""One document alone trains: its last part is held out, prepared and streamed."""

import itertools
from pathlib import Path

import pytest

from pile_lightning.data import StreamedText, TextData
from pile_lightning.data.cut_document import cut_text, is_one_document

SETTINGS = {"tokenizer": "byte", "seq_len": 32, "batch_size": 4, "num_proc": 1}


@pytest.fixture
def one_file(tmp_path: Path) -> Path:
    path = tmp_path / "input.txt"
    path.write_text("".join(f"line {i} of the only text\n" for i in range(2000)))
    return path


def test_the_last_lines_are_held_out(one_file: Path, tmp_path: Path) -> None:
    data = TextData(str(one_file), cache_dir=str(tmp_path / "cache"), **SETTINGS)
    data.prepare_data()
    (held_out,) = data.held_out_texts()
    (learned,) = (data.tokenizer.decode(ids) for ids in data.store.stream("train", 0).documents())
    assert learned + held_out == one_file.read_text()
    assert learned.endswith("\n")
    assert 0.04 < len(held_out) / len(learned + held_out) < 0.06
    line = learned.count("\n") + 1
    assert f"of input.txt are held out, from line {line:,} (byte" in data.store.remarks()[0]


def test_copies_of_one_document_are_cut_alike(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("one\ntwo\nthree\n" * 50)
    data = TextData(str(tmp_path), cache_dir=str(tmp_path / "cache"), **SETTINGS)
    data.prepare_data()
    assert len(set(data.held_out_texts())) == 1
    assert data.store.counts("train").documents == data.store.counts("val").documents == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_of_it_gives_every_lane_text_and_goes_on(
    one_file: Path, tmp_path: Path, workers: int
) -> None:
    def stream() -> StreamedText:
        settings = SETTINGS | {"cache_dir": str(tmp_path / "cache"), "num_workers": workers}
        data = StreamedText(str(one_file), num_lanes=64, **settings)
        data.prepare_data()
        return data

    first = stream()
    rows = [batch["input_ids"] for batch in itertools.islice(first.train_dataloader(), 40)]
    (held_out,) = first.held_out_texts()
    texts = [first.tokenizer.decode(ids[1:]) for row in rows for ids in row.numpy()]
    last_lines = set(held_out.splitlines()[1:-1])
    assert not [text for text in texts if last_lines & set(text.splitlines()[1:-1])]

    half = stream()
    loader = iter(half.train_dataloader())
    for _ in range(17):
        next(loader)
    again = stream()
    again.load_state_dict(half.state_dict() | {"rows": 17 * 4} if workers else half.state_dict())
    if not workers:
        following = next(iter(again.train_dataloader()))["input_ids"]
        assert following.tolist() == rows[half.state_dict()["rows"] // 4].tolist()


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("one\ntwo\n", "two\n"),
        ("x" * 1000, "x" * 50),
        ("ab " * 10_000, None),
        ("x" * 99_000 + "\nend", None),
        ("ab", "b"),
    ],
)
def test_where_a_text_is_cut(text: str, rest: str | None) -> None:
    at = cut_text(text, 0.95)
    assert 0 < at < len(text)
    assert text[at:] == rest or (rest is None and 0.02 < 1 - at / len(text) < 0.08)


def test_the_second_document_ends_the_search() -> None:
    digests = iter([b"1", b"1", b"2", b"3"])
    assert not is_one_document(digests)
    assert list(digests) == [b"3"]
    assert is_one_document([b"1", b"1"])
    assert not is_one_document([])
