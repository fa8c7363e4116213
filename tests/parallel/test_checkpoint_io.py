"""A checkpoint is the old one or the new one, never a part, and loading one runs no code."""

import os
import pickle

import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from pile_lightning.parallel import AtomicCheckpointIO


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
    before = path.read_bytes()

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
        with pytest.raises(OSError, match="no space"):
            AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert path.read_bytes() == before
    assert [p for p in names_beside(path) if p.endswith(".ckpt")] == ["last.ckpt"]
    AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
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
        opened.append(os.path.dirname(file.name))
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
    torch.save({"run": os.getcwd}, path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        AtomicCheckpointIO().load_checkpoint(path)
