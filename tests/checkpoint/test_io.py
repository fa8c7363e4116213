"""A checkpoint is the old one or the new one, never a part, and loading one runs no code."""

import os
import time
import zipfile

import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from pile_lightning.checkpoint import AtomicCheckpointIO
from pile_lightning.checkpoint.tree import without_excess


@pytest.fixture
def path(tmp_path):
    """Where a good checkpoint of step 1 lies."""
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    return path


def names_beside(path):
    return sorted(file.name for file in path.parent.iterdir())


def test_tensors_and_numbers_come_back(tmp_path):
    path = tmp_path / "a" / "b.ckpt"
    stored = {"step": 3, "weight": torch.randn(4, 3, dtype=torch.bfloat16)}
    AtomicCheckpointIO().save_checkpoint(stored, str(path))
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["step"] == 3
    assert torch.equal(loaded["weight"], stored["weight"])
    assert names_beside(path) == ["b.ckpt"]


@pytest.mark.parametrize("stage", ["write", "sync"])
def test_a_save_that_fails_leaves_the_old_checkpoint(path, monkeypatch, stage):
    before, io = path.read_bytes(), AtomicCheckpointIO()

    def half_written(checkpoint, file):
        file.write(b"half of a checkp")
        raise OSError("no space left on device")

    def lost(descriptor):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        if stage == "write":
            patch.setattr(torch, "save", half_written)
        else:
            patch.setattr(os, "fsync", lost)
        with pytest.warns(UserWarning, match=r"last.ckpt was not saved: no space .* tries again"):
            io.save_checkpoint({"step": 2}, path)
    assert io.failed(path) == "no space left on device"
    assert path.read_bytes() == before
    assert names_beside(path) == ["last.ckpt"]
    io.save_checkpoint({"step": 2}, path)
    assert io.failed(path) is None
    assert names_beside(path) == ["last.ckpt"]
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 2}


def test_the_content_is_on_the_disk_before_the_name(path, monkeypatch):
    done = []
    replace, fsync = os.replace, os.fsync

    def noting_sync(descriptor):
        done.append(("sync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def noting_rename(source, target):
        done.append(("rename", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr("pathlib.Path.replace", noting_rename)
    AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    file, folder = path.stat().st_ino, path.parent.stat().st_ino
    assert done == [("sync", file), ("rename", file), ("sync", folder)]


def test_the_new_file_is_written_on_the_file_system_of_the_old(path, monkeypatch):
    opened = []
    save = torch.save

    def noting(checkpoint, file):
        opened.append(os.path.dirname(file.file.name))
        save(checkpoint, file)

    monkeypatch.setattr(torch, "save", noting)
    AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert opened == [str(path.parent)]


def test_storage_options_are_refused(path):
    with pytest.raises(TypeError, match=r"takes no storage_options; pass them to a CheckpointIO"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path, storage_options={})
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}


def test_remote_paths_go_to_the_writer_that_knows_them(monkeypatch):
    written = []

    def note(self, checkpoint, path, storage_options=None):
        written.append((checkpoint, path))

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", note)
    AtomicCheckpointIO().save_checkpoint({"step": 2}, "s3://bucket/last.ckpt")
    assert written == [({"step": 2}, "s3://bucket/last.ckpt")]


def test_a_checkpoint_that_holds_code_is_refused(path):
    AtomicCheckpointIO().save_checkpoint({"run": os.getcwd}, path)
    with pytest.raises(ValueError, match=r"last.ckpt holds \w+.getcwd; only tensors and plain"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)


def test_other_tools_open_the_file(tmp_path):
    path = tmp_path / "last.ckpt"
    weight = torch.randn(7, 300)
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"weight": weight}, "global_step": 3}, path)
    for settings in ({}, {"mmap": True}):
        loaded = torch.load(path, weights_only=True, **settings)
        assert torch.equal(loaded["state_dict"]["weight"], weight)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    moved = tmp_path / "moved.ckpt"
    path.rename(moved)
    assert AtomicCheckpointIO().load_checkpoint(moved)["global_step"] == 3


def test_a_folder_is_loaded_like_a_file(tmp_path):
    state = {
        "state_dict": {"weight": torch.randn(3, 2), "count": torch.tensor(5)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}],
        "global_step": 3,
        "summary": {"tokens": 300},
    }
    io = AtomicCheckpointIO()
    io.save_shards(state, tmp_path / "folder")
    io.save_checkpoint(state, tmp_path / "file")
    assert (tmp_path / "folder").is_dir()
    one, two = io.load_checkpoint(tmp_path / "folder"), io.load_checkpoint(str(tmp_path / "file"))
    assert one.keys() == two.keys()
    assert torch.equal(one["state_dict"]["weight"], two["state_dict"]["weight"])
    assert one["optimizer_states"] == two["optimizer_states"]
    for name in ("file", "folder"):
        summary = io.summary(tmp_path / name)
        assert summary == {
            "step": 3,
            "tokens": 300,
            "saved_at": pytest.approx(time.time(), abs=60),
            "save_number": 1,
        }


@pytest.mark.parametrize("first", ["file", "folder"])
def test_a_folder_replaces_a_file_and_the_other_way_round(tmp_path, first):
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    saves = [io.save_checkpoint, io.save_shards]
    for step, save in enumerate(saves if first == "file" else saves[::-1]):
        save({"global_step": step}, path)
        assert io.load_checkpoint(path) == {"global_step": step}
        assert names_beside(path) == ["last.ckpt"]


@pytest.mark.parametrize("save", ["save_checkpoint", "save_shards"])
def test_what_a_kill_leaves_is_passed_over_and_then_removed(tmp_path, save):
    io, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    getattr(io, save)({"global_step": 1}, path)
    (tmp_path / ".other.ckpt.partial").write_bytes(b"of a process that goes on")
    path.rename(tmp_path / ".last.ckpt.old")  # killed between the two renames
    (tmp_path / ".last.ckpt.partial").mkdir()
    (tmp_path / ".last.ckpt.partial" / "rank-00000.safetensors").write_bytes(b"half")
    (tmp_path / ".best.ckpt.partial").write_bytes(b"half")
    os.utime(tmp_path / ".best.ckpt.partial", (0, 0))
    assert io.load_checkpoint(path) == {"global_step": 1}
    getattr(io, save)({"global_step": 2}, path)
    assert io.load_checkpoint(path) == {"global_step": 2}
    assert names_beside(path) == [".other.ckpt.partial", "last.ckpt"]
    io.remove_checkpoint(path)
    assert names_beside(path) == [".other.ckpt.partial"]


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*no.ckpt; name one that exists"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "no.ckpt")


def test_a_part_of_a_larger_tensor_is_saved_alone(tmp_path):
    whole = torch.arange(40_000.0).view(40, 1000)
    weight = nn.Parameter(torch.zeros(1000))
    weight.data = whole[3]
    io = AtomicCheckpointIO()
    state = {"weight": weight.data, "tied": weight.data, "own": torch.ones(2), "list": [whole[4]]}
    io.save_checkpoint(state, tmp_path / "part.ckpt")
    assert (tmp_path / "part.ckpt").stat().st_size < 12_000
    loaded = io.load_checkpoint(tmp_path / "part.ckpt")
    assert torch.equal(loaded["weight"], whole[3])
    assert torch.equal(loaded["list"][0], whole[4])
    assert loaded["tied"].data_ptr() == loaded["weight"].data_ptr()
    assert state["weight"].data_ptr() == whole[3].data_ptr()


def test_parts_that_make_up_a_tensor_are_saved_in_it(tmp_path):
    state = {"parts": list(torch.arange(40_000.0).view(40, 1000))}
    assert without_excess(state) is state
    AtomicCheckpointIO().save_checkpoint(state, tmp_path / "parts.ckpt")
    loaded = AtomicCheckpointIO().load_checkpoint(tmp_path / "parts.ckpt")["parts"]
    assert all(torch.equal(a, b) for a, b in zip(loaded, state["parts"], strict=True))
