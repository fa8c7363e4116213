"""Packs: made once for a store and a length of rows, by one process, and again when damaged."""

import json
import multiprocessing
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.data import MixtureConfig, StreamedText, TextData, packs
from pile_lightning.data.cache_errors import CacheError
from pile_lightning.data.survey import survey

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def make(folder: Path, tmp_path: Path) -> Callable[..., TextData]:
    def make(**settings: object) -> TextData:
        defaults = {"tokenizer": "byte", "cache_dir": str(tmp_path / "c"), "packing": "best_fit"}
        return TextData(str(folder), **(defaults | {"seq_len": 32} | settings))  # type: ignore[arg-type]

    return make


def folder_of(data: TextData) -> Path:
    return data.store_path / f"best_fit-{data.seq_len}"


def test_made_once_for_each_length(
    make: Callable[..., TextData], capsys: pytest.CaptureFixture[str]
) -> None:
    make().prepare_data()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    rows = make().training_rows
    assert f"into {rows.num_rows:,} rows of 32 ({make().padding:.2%} padding)" in lines[1]
    make().prepare_data()
    make(seed=3, batch_size=4).prepare_data()
    assert not capsys.readouterr().out
    make(seq_len=64).prepare_data()
    assert "rows of 64" in capsys.readouterr().out
    make(packing="split").prepare_data()
    assert not capsys.readouterr().out


def test_an_epoch_has_every_document_of_the_store(make: Callable[..., TextData]) -> None:
    data = make(seq_len=512, batch_size=1)
    data.prepare_data()
    rows = data.training_rows
    texts = []
    for batch, _ in zip(data.train_dataloader(), range(rows.num_rows), strict=False):
        for number in range(int(batch["document_ids"].max()) + 1):
            here = (batch["document_ids"] == number) & (batch["labels"] != IGNORE_INDEX)
            if here.any():
                texts.append(data.tokenizer.decode(batch["input_ids"][here].numpy()[1:]))
    stored = [
        data.tokenizer.decode(ids)
        for stream in data.store.streams("train")
        for ids in stream.documents()
    ]
    assert max(map(len, stored)) < 512
    assert sorted(texts) == sorted(stored)
    assert 0 < data.padding < 0.05


@pytest.mark.filterwarnings("ignore:.*is damaged .* is made again")
@pytest.mark.parametrize("damage", ["lost", "short", "other", "no json"])
def test_made_again_when_damaged(make: Callable[..., TextData], damage: str) -> None:
    data = make()
    data.prepare_data()
    whole = data.training_rows.batch(np.arange(5))
    folder = folder_of(data)
    if damage == "lost":
        (folder / "lengths").unlink()
    elif damage == "short":
        (folder / "starts").write_bytes((folder / "starts").read_bytes()[:-8])
    elif damage == "other":
        manifest = json.loads((folder / "pack.json").read_text())
        manifest["made_of"]["content"] = "another store that lay here"
        (folder / "pack.json").write_text(json.dumps(manifest))
    else:
        (folder / "pack.json").write_text("{")
    with pytest.raises(
        RuntimeError, match=r"no pack for rows of 32 .* call prepare_data\(\) first"
    ):
        make().setup("fit")
    data = make()
    data.prepare_data()
    again = data.training_rows.batch(np.arange(5))
    assert all(torch.equal(again[key], whole[key]) for key in whole)  # type: ignore[literal-required]


@pytest.mark.parametrize("name", ["starts", "lengths", "row_ends"])
def test_a_flipped_bit_is_found_and_the_pack_made_again(
    make: Callable[..., TextData], name: str
) -> None:
    data = make()
    data.prepare_data()
    path = folder_of(data) / name
    whole = path.read_bytes()
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.warns(UserWarning, match=rf"best_fit-32/{name} is damaged .* made again"):
        make().prepare_data()
    assert path.read_bytes() == whole


def test_a_pack_that_is_cut_while_it_is_read_is_one_line(make: Callable[..., TextData]) -> None:
    """And not the end of the process, which reading a map behind the end of its file is."""
    data = make()
    data.prepare_data()
    data.training_rows.batch(np.arange(5))
    path = folder_of(data) / "starts"
    whole = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"have lost the end of .*starts; call prepare_data"):
        data.training_rows.batch(np.arange(5))
    path.write_bytes(whole)


def test_what_a_killed_builder_left_is_in_nobodys_way(make: Callable[..., TextData]) -> None:
    data = make()
    make(packing="split").prepare_data()
    left = data.store_path / "best_fit-32.partial"
    left.mkdir()
    (left / "starts").write_bytes(b"half")
    data.prepare_data()
    assert not left.exists()
    assert data.training_rows.num_rows > 0


def test_two_processes_pack_at_once(
    make: Callable[..., TextData], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make(packing="split").prepare_data()
    write = packs.write_pack

    def noted(*arguments: object, **settings: object) -> packs.Pack:
        with (tmp_path / "log").open("a") as file:
            file.write("packed\n")
        return write(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(packs, "write_pack", noted)
    processes = [FORK.Process(target=make().prepare_data) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "packed\n"


def test_a_full_disk_leaves_nothing_behind(
    make: Callable[..., TextData], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(packing="split").prepare_data()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packs, "write_pack", full)
    with pytest.raises(CacheError, match="the disk of .* is full"):
        make().prepare_data()
    monkeypatch.undo()
    assert not any(path.suffix == ".partial" for path in make().store_path.iterdir())
    make().prepare_data()


def test_weights_are_those_of_the_text_and_not_of_padding(tmp_path: Path) -> None:
    # documents of nine tokens and of sixteen, in rows of sixteen: one domain is half padding
    for name, size in (("a", 8), ("b", 15)):
        (tmp_path / name).mkdir()
        for number in range(60):
            (tmp_path / name / f"{number}.txt").write_text(f"{number:02d}".ljust(size, name))
    data = TextData(
        [str(tmp_path / "a"), str(tmp_path / "b")],
        tokenizer="byte",
        seq_len=16,
        packing="best_fit",
        cache_dir=str(tmp_path / "c"),
        mixture=MixtureConfig(weights={"a": 1, "b": 1}),
    )
    data.prepare_data()
    assert data.training_rows.fill_by_domain.tolist() == [9 / 16, 1.0]
    assert data.mixture_weights() == {"a": 0.5, "b": 0.5}
    seen = np.zeros(2)
    for batch in islice(data.train_dataloader(), 200):
        held = (batch["labels"] != IGNORE_INDEX).sum(1)
        seen += np.bincount(batch["domain"], weights=held, minlength=2)
    assert seen[0] == pytest.approx(seen[1], rel=0.01)
    told = [tokens for tokens, _ in data.delivered(200 * 8).values()]
    assert told == pytest.approx(seen.tolist(), rel=1e-6)


def test_what_is_padded_is_told(make: Callable[..., TextData]) -> None:
    data = make()
    data.prepare_data()
    assert survey(data).padding == data.padding > 0
    assert survey(make(packing="split")).padding is None


def test_padding_of_a_stream_is_counted_as_it_is_handed_out(folder: Path, tmp_path: Path) -> None:
    data = StreamedText(
        str(folder), tokenizer="byte", seq_len=64, packing="best_fit", cache_dir=str(tmp_path)
    )
    data.prepare_data()
    assert data.padding == 0
    batches = list(islice(data.train_dataloader(), 20))
    padded = sum(int((batch["labels"] == IGNORE_INDEX).sum()) for batch in batches)
    assert data.padding == pytest.approx(padded / (20 * 8 * 64))
    assert 0 < data.padding < 0.2


def test_a_checkpoint_of_rows_that_are_packed_otherwise(make: Callable[..., TextData]) -> None:
    split, whole = make(packing="split"), make()
    split.prepare_data()
    whole.prepare_data()
    whole.load_state_dict(split.state_dict())
    with pytest.raises(ValueError, match="packing: 'split' in the checkpoint, 'best_fit' now"):
        whole.train_dataloader()
