"""A disk that is full costs a checkpoint, not the run and not the checkpoint before."""

import os
import resource
import subprocess
import warnings

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor

from pile_lightning.checkpoint import AtomicCheckpointIO, staging
from tests.checkpoint.worlds import in_ranks, world


def state_of(step):
    return {"global_step": step, "state_dict": {"weight": torch.full((500, 500), float(step))}}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB: two checkpoints of 1 MB fit it, and three do not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_files(tmp_path):
    """A folder, while no file may grow past 2 MB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 2**20, before[1]))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


SAVES = pytest.mark.parametrize("save", ["save_checkpoint", "save_shards"])
BACKGROUND = pytest.mark.parametrize("background", [False, True], ids=["", "background"])


def saves_until_full(save, background, folder, ballast, reason, big=1):
    io, path = AtomicCheckpointIO(background=background), folder / "run" / "last.ckpt"
    getattr(io, save)(state_of(1), path)
    io.wait()
    ballast()
    state = state_of(2)
    state["state_dict"]["more"] = torch.ones(big, 250_000)

    def save_it():
        getattr(io, save)(state, path)
        io.wait()

    with pytest.warns(UserWarning, match=rf"last.ckpt was not saved: .*{reason}.* is untouched"):
        save_it()
    assert reason in io.failed(path)
    assert io.load_checkpoint(path)["global_step"] == 1
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]
    return io, path


@SAVES
@BACKGROUND
def test_on_a_full_disk(small_disk, save, background):
    ballast = small_disk / "ballast"
    io, path = saves_until_full(
        save,
        background,
        small_disk,
        lambda: ballast.write_bytes(bytes(3 * 2**19)),
        "No space left on device",
    )
    ballast.unlink()
    getattr(io, save)(state_of(3), path)
    io.teardown()
    assert io.failed(path) is None
    assert io.load_checkpoint(path)["global_step"] == 3


@SAVES
@BACKGROUND
def test_past_the_size_that_files_may_have(small_files, save, background):
    io, _ = saves_until_full(save, background, small_files, lambda: None, "File too large", big=2)
    io.teardown()


def rank_one_has_a_full_disk(rank, folder):
    def full(path, tensors):
        if rank == 1:
            raise OSError(28, "No space left on device")
        return write(path, tensors)

    write, rank_zero_only.rank = staging.write_safetensors, rank
    with world(folder, "save", rank, 2):
        with pytest.raises(ValueError, match=r"ranks 0 and 1 hold parts of different tensors \(0/"):
            AtomicCheckpointIO().save_shards({rank: replicas()}, os.path.join(folder, "x"))
        for background in (False, True):
            io = AtomicCheckpointIO(background=background)
            path = os.path.join(folder, f"{background}.ckpt")
            io.save_shards(state_of(1), path)
            io.wait()
            staging.write_safetensors = full
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                # of replicas, the ranks in turn write one
                io.save_shards({**state_of(2), "more": replicas()}, path)
                io.wait()
            assert any("rank 1: [Errno 28] No space" in str(each.message) for each in said) == (
                rank == 0
            )
            assert "No space" in io.failed(path)
            assert io.load_checkpoint(path)["global_step"] == 1
            staging.write_safetensors = write
            io.save_shards({**state_of(3), "more": replicas()}, path)
            io.teardown()
            assert io.load_checkpoint(path)["global_step"] == 3
            loaded = {"more": replicas(fill=0.0)}
            io.load_shards(loaded, path)
            for value in loaded["more"].values():
                assert (value.full_tensor() == 1).all()


def replicas(fill=1.0):
    mesh = init_device_mesh("cpu", (2,))
    return {n: distribute_tensor(torch.full((9,), fill), mesh, [Replicate()]) for n in range(4)}


@pytest.mark.slow
@pytest.mark.dist
def test_all_ranks_agree_that_one_could_not_save(tmp_path):
    in_ranks(rank_one_has_a_full_disk, str(tmp_path), processes=2)
    for name in ("False", "True"):
        assert (tmp_path / f"{name}.ckpt").is_dir()
    assert not list(tmp_path.glob(".*"))
