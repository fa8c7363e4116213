"""Hugging Face datasets: the same documents saved, loaded and streamed."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from pile_lightning.data import DatasetFolder, Document, HubDataset, Skipped, hub
from pile_lightning.data.policy import BadInput

Either = DatasetFolder | HubDataset
ROWS = [{"text": f"text {i}", "meta": {"set": "ab"[i % 2]}, "id": i} for i in range(50)]
EXPECTED = [(row["text"], row["meta"]["set"]) for row in ROWS]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for part in range(2):
        lines = [json.dumps(row) + "\n" for row in ROWS[part * 25 : part * 25 + 25]]
        (folder / f"{part}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture(params=["saved", "streamed", "loaded"])
def source(request: pytest.FixtureRequest, files: Path, saved: Path) -> Either:
    if request.param == "saved":
        return DatasetFolder(saved, domain_key="meta.set")
    return HubDataset(files, streaming=request.param == "streamed", domain_key="meta.set")


def documents(source: Either) -> list[tuple[str, str | None]]:
    return [(item.text, item.domain) for item in source.documents() if isinstance(item, Document)]


def test_the_same_documents_in_every_way(source: Either, monkeypatch: pytest.MonkeyPatch) -> None:
    assert documents(source) == EXPECTED
    assert source.name in ("files", "saved")
    monkeypatch.setattr(hub, "_SHARD_BYTES", 300)
    assert len(source.shards()) >= 2
    assert documents(source) == EXPECTED


def test_any_row_is_where_a_reader_can_go_on(
    source: Either, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_SHARD_BYTES", 700)
    source = pickle.loads(pickle.dumps(source))
    for shard in pickle.loads(pickle.dumps(source.shards())):
        items = list(source.read(shard))
        for start in range(len(items) + 2):
            assert list(source.read(shard, start)) == items[start:]


def test_moved_it_is_the_same_data(source: Either, tmp_path: Path) -> None:
    before, items = source.fingerprint(), list(source.documents())
    path = shutil.move(str(source.path), tmp_path / "elsewhere")
    changed = {field: getattr(source, field) for field in ("name", "domain_key")}
    if isinstance(source, HubDataset):
        changed["streaming"] = source.streaming
    moved = type(source)(path, **changed)
    assert moved.fingerprint() == before
    assert list(moved.documents()) == items


def test_files_that_change_are_loaded_again(files: Path) -> None:
    source = HubDataset(files)
    before = source.fingerprint()
    (files / "0.jsonl").write_text(json.dumps(ROWS[0] | {"text": "new"}) + "\n")
    assert source.fingerprint() != before
    assert len(documents(source)) == 26


def test_a_wrong_column_lists_the_columns(source: Either) -> None:
    wrong = type(source)(source.path, text_key="content")
    with pytest.raises(ValueError, match=r"50 of 50 .*'content'; they have 'text', 'meta', 'id'"):
        list(BadInput().documents(wrong.documents()))
    other = type(source)(source.path, text_key="id")
    assert {item.reason for item in other.documents()} == {"field 'id' is not a string"}


def test_rows_without_text(tmp_path: Path) -> None:
    Dataset.from_dict({"text": ["a", None, ""]}).save_to_disk(tmp_path / "saved")
    assert list(DatasetFolder(tmp_path / "saved").documents()) == [
        Document("a", "saved, row 0"),
        Skipped("empty text", "saved, row 1"),
        Skipped("empty text", "saved, row 2"),
    ]


def test_splits_that_were_saved_together(tmp_path: Path) -> None:
    train, test = Dataset.from_list(ROWS), Dataset.from_list(ROWS[:3])
    DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "both")
    assert len(documents(DatasetFolder(tmp_path / "both", split="test"))) == 3
    for split in ("val", "tests"):
        with pytest.raises(ValueError, match=r"does not exist; choose among train, test"):
            DatasetFolder(tmp_path / "both", split=split).shards()
    with pytest.raises(ValueError, match=r"holds one dataset .* leave split='train' out"):
        DatasetFolder(tmp_path / "both/train", split="train").shards()
    with pytest.raises(FileNotFoundError, match=r"save_to_disk has written; to read .* FileSource"):
        DatasetFolder(tmp_path).shards()


@pytest.mark.parametrize("streaming", [True, False])
def test_a_broken_line_ends_in_a_clear_error(files: Path, streaming: bool) -> None:
    (files / "1.jsonl").write_text('{"text": "a"}\n{"text": "b\n{"text": "c"}\n')
    with pytest.raises(OSError, match=r"datasets cannot read .*files.* FileSource reads the other"):
        documents(HubDataset(files, streaming=streaming))


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("{files}", {"config": "french"}, "cannot load .*french.*; check path, config, split"),
        ("{files}", {"split": "nope"}, "cannot load .*nope"),
        ("nobody/nothing", {}, "cannot load 'nobody/nothing': .*; check path, config, split"),
    ],
)
def test_what_cannot_be_loaded_ends_in_a_clear_error(
    files: Path, path: str, fields: dict[str, str], message: str
) -> None:
    with pytest.raises(OSError, match=message):
        HubDataset(path.format(files=files), **fields).shards()


def test_a_commit_is_known_without_asking() -> None:
    identities = {
        HubDataset("a/b", revision=revision, config=config)._identity()
        for revision in ("0" * 40, "1" * 40)
        for config in (None, "en")
    }
    assert len(identities) == 4


def test_a_branch_is_read_at_one_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: dict[str, object] = {}
    monkeypatch.setattr(hub, "_newest_commit", lambda *_: "c" * 40)
    monkeypatch.setattr(hub, "_load_dataset", lambda _, **arguments: loaded.update(arguments))
    source = HubDataset("a/b", config="en", revision="main")
    source._load()
    assert (loaded["path"], loaded["name"], loaded["revision"]) == ("a/b", "en", "c" * 40)
    assert source._identity() == HubDataset("a/b", config="en", revision="c" * 40)._identity()
