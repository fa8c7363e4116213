"""A damaged checkpoint is refused, wherever the damage is; it never loads as something else."""

import random
import shutil

import pytest
import torch

from pile_lightning.checkpoint import AtomicCheckpointIO, save_shards
from pile_lightning.checkpoint.paths import read_summary, verify_checkpoint

STATE = {
    "state_dict": {"weight": torch.arange(600.0).reshape(20, 30), "count": torch.tensor(3)},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(20, 30)}}, "param_groups": []}],
    "global_step": 3,
}


def damage(path, random_state):
    """Cut a file short or flip one of its bits."""
    data = bytearray(path.read_bytes())
    at = random_state.randrange(len(data))
    if random_state.random() < 0.5:
        del data[at:]
    else:
        data[at] ^= 1 << random_state.randrange(8)
    path.write_bytes(data)


@pytest.fixture
def good(tmp_path):
    """A file and a folder of the same state."""
    AtomicCheckpointIO().save_checkpoint(STATE, tmp_path / "file.ckpt")
    save_shards(STATE, tmp_path / "folder.ckpt")
    return tmp_path / "file.ckpt", tmp_path / "folder.ckpt"


@pytest.mark.parametrize("seed", range(200))
def test_random_damage_is_refused(good, tmp_path, seed):
    file, folder = good
    random_state = random.Random(seed)
    part = random_state.choice(sorted(folder.iterdir()))
    for path, hit in ((file, file), (folder, part)):
        damage(hit, random_state)
        with pytest.raises(ValueError, match=r"take another checkpoint"):
            AtomicCheckpointIO().load_checkpoint(path)
        with pytest.raises(ValueError, match=r"take another checkpoint"):
            verify_checkpoint(path)


@pytest.mark.parametrize(
    "name", ["COMPLETE", "manifest.json", "plain.pt", "rank-00000.safetensors"]
)
def test_a_folder_without_one_of_its_files_is_refused(good, name):
    (good[1] / name).unlink()
    with pytest.raises(ValueError, match=rf"{name}.*take another checkpoint"):
        AtomicCheckpointIO().load_checkpoint(good[1])


FOREIGN = {
    "an empty file": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"x"),
    "text": lambda path: path.write_text("a text of some length, to be no checkpoint" * 9),
    "the mark alone": lambda path: path.write_bytes(b"PILECKPT" * 9),
    "a file of torch": lambda path: torch.save(STATE, path),
    "a file with something behind it": lambda path: path.write_bytes(
        path.with_name("file.ckpt").read_bytes() + b"\0"
    ),
    "an empty folder": lambda path: path.mkdir(),
    "a folder in a folder": lambda path: shutil.copytree(
        path.with_name("folder.ckpt"), path / "inner"
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_checkpoint_of_ours_is_refused(good, tmp_path, kind):
    path = tmp_path / "foreign.ckpt"
    FOREIGN[kind](path)
    for read in (AtomicCheckpointIO().load_checkpoint, verify_checkpoint, read_summary):
        with pytest.raises(ValueError, match=r"foreign.ckpt.*take another checkpoint"):
            read(path)
