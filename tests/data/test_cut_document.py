"""One document alone trains: its last part is held out, prepared and streamed."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pile_lightning.data import StreamedText, TextData, TextModule
from pile_lightning.data.cut_document import cut_text, is_one_document
from tests.data.toy_runs import run

# Lightning's own code, against torch 2.13
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")

SETTINGS: dict[str, Any] = {"tokenizer": "byte", "seq_len": 64, "batch_size": 4, "num_proc": 1}


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


def test_a_stream_of_it_gives_every_lane_text_that_is_not_held_out(
    one_file: Path, tmp_path: Path
) -> None:
    data = StreamedText(str(one_file), cache_dir=str(tmp_path / "cache"), **SETTINGS)
    data.prepare_data()
    (held_out,) = data.held_out_texts()
    batches = itertools.islice(data.train_dataloader(), 200)
    texts = {line for batch in batches for ids in batch["input_ids"].numpy() for line in lines(ids)}
    assert texts & set(one_file.read_text().splitlines())
    assert not texts & set(held_out.splitlines()[1:])


def lines(ids: npt.NDArray[np.int64]) -> list[str]:
    """Return the lines of a row of bytes that are whole."""
    return bytes(id for id in ids.tolist() if id < 256).decode().split("\n")[1:-1]


@pytest.mark.parametrize("kind", [TextData, StreamedText])
def test_it_goes_on_exactly(one_file: Path, tmp_path: Path, kind: type[TextModule]) -> None:
    def part(steps: int, **settings: Any) -> list[list[Any]]:
        data = kind(str(one_file), cache_dir=str(tmp_path / "cache"), **SETTINGS)
        toy, made = run(data, tmp_path, max_steps=steps, **settings)
        made.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return toy.steps

    whole = part(9)
    assert part(5) + part(8, ckpt_path=tmp_path / "5.ckpt") == whole[:8]


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
