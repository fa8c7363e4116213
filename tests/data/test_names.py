"""Names in the files of stores and datasets lead to no file outside of them."""

import json

import pytest
from datasets import Dataset, DatasetDict

from pile_lightning import TextData
from pile_lightning.data.hub import DatasetFolder
from pile_lightning.data.store import TokenStore


def rewrite(path, change):
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


def test_a_saved_dataset_names_files_of_its_own(tmp_path):
    rows = Dataset.from_dict({"text": ["one", "two"]})
    rows.save_to_disk(tmp_path / "one")
    rows.save_to_disk(tmp_path / "two")
    (name,) = [path.name for path in (tmp_path / "one").glob("*.arrow")]
    assert len(list(DatasetFolder(tmp_path / "one").documents())) == 2
    for wrong in (f"../two/{name}", str(tmp_path / "two" / name), None):
        rewrite(
            tmp_path / "one/state.json",
            lambda plain, wrong=wrong: plain.update(_data_files=[{"filename": wrong}]),
        )
        with pytest.raises(ValueError, match="not a plain file name"):
            list(DatasetFolder(tmp_path / "one").documents())


def test_splits_are_folders_of_their_own(tmp_path):
    rows = Dataset.from_dict({"text": ["one", "two"]})
    DatasetDict(train=rows).save_to_disk(tmp_path / "both")
    rows.save_to_disk(tmp_path / "outside")
    rewrite(tmp_path / "both/dataset_dict.json", lambda plain: plain["splits"].append("../outside"))
    with pytest.raises(ValueError, match="not a plain file name"):
        list(DatasetFolder(tmp_path / "both", split="../outside").documents())


def test_a_store_names_parts_beside_it(corpus, tmp_path):
    data = TextData(str(corpus), tokenizer="byte", cache_dir=str(tmp_path), num_proc=1)
    data.prepare_data()
    (manifest,) = tmp_path.glob("*/manifest.json")
    assert TokenStore.find(manifest.parent) is not None
    rewrite(manifest, lambda plain: plain["parts"][0].__setitem__(0, "../../outside"))
    assert TokenStore.find(manifest.parent) is None
    with pytest.raises(RuntimeError, match="manifest.json is damaged"):
        TokenStore(manifest.parent)


def test_data_are_not_made_of_a_checkpoint():
    with pytest.raises(TypeError, match="make it with its settings"):
        TextData.load_from_checkpoint("http://127.0.0.1:9/last.ckpt")
