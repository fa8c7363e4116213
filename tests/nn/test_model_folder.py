"""A folder of a Hugging Face model is read as data, whole, and no further than it goes."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pile_lightning.checkpoint_settings import reading_checkpoint
from pile_lightning.data.tokenizer_specs import load_tokenizer
from pile_lightning.nn import HuggingFaceConfig

SIZES = {"vocab_size": 16, "max_seq_len": 8}


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    from transformers import GPT2Config, GPT2LMHeadModel, logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    sizes = {"n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 1, "tie_word_embeddings": True}
    GPT2LMHeadModel(GPT2Config(vocab_size=16, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *words: pytest.fail("it asked on the terminal"))
    return shutil.copytree(saved, tmp_path / "model")


def change(path, **more):
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def build(folder):
    return HuggingFaceConfig(model=str(folder)).build(**SIZES)


def weights(folder, change):
    path = folder / "model.safetensors"
    found = load_file(path)
    change(found)
    save_file(found, path, metadata={"format": "pt"})


def test_a_whole_folder_is_read(folder):
    assert build(folder).model.config.n_embd == 8


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda all: all.pop("transformer.wpe.weight"), "wpe.weight are missing"),
        (
            lambda all: all.update({"transformer.wpe.weight": torch.ones(3, 8)}),
            "wpe.weight.* shape",
        ),
        (
            lambda all: all["transformer.wpe.weight"].fill_(float("nan")),
            "wpe.weight are not finite",
        ),
    ],
)
def test_weights_that_are_not_the_models_are_refused(folder, spoil, says):
    weights(folder, spoil)
    with pytest.raises(ValueError, match=says) as caught:
        build(folder)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_data(folder):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert build(folder) is not None
    torch.save(state | {"evil": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read as data"):
        build(folder)
    assert not (folder.parent / "ran").exists()


@pytest.mark.parametrize("where", ["other/repo--mine.Model", "mine.Model"])
def test_code_of_a_model_is_not_run_and_not_asked_for(folder, where):
    (folder / "mine.py").write_text("open('ran', 'w')")
    code = {"AutoConfig": where, "AutoModelForCausalLM": where}
    change(folder / "config.json", auto_map=code, model_type="of_nobody")
    with pytest.raises(ValueError, match="model"):
        build(folder)
    with pytest.raises(ValueError, match="tokenizer="):
        load_tokenizer("nobody/of_this_name")
    assert not (folder.parent / "ran").exists()


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "", 3])
def test_an_index_names_no_file_outside(folder, name):
    shutil.copy(folder / "model.safetensors", folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"transformer.wpe.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="not a plain file name"):
        build(folder)


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_config_is_one_line(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config.json") as caught:
        build(folder)
    assert "\n" not in str(caught.value)


def test_links_lead_to_the_caches_blobs_and_nowhere_else(folder):
    blobs, snapshot = folder.parent / "cache/blobs", folder.parent / "cache/snapshots/0a1b"
    shutil.move(folder, blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(os.path.relpath(path, snapshot))
    assert build(snapshot) is not None
    elsewhere = folder.parent / "elsewhere"
    shutil.copytree(snapshot, elsewhere, symlinks=False)
    (elsewhere / "model.safetensors").unlink()
    (elsewhere / "model.safetensors").symlink_to(blobs / "model.safetensors")
    with pytest.raises(ValueError, match="link out of the folder"):
        build(elsewhere)


def test_a_checkpoint_makes_nobody_read_a_folder(folder):
    with reading_checkpoint(), pytest.raises(ValueError, match="does not say which architecture"):
        HuggingFaceConfig(model=str(folder))
