"""Saved in the background is what the state was when it was saved, one save at a time."""

import threading
from collections import OrderedDict

import pytest
import torch

from pile_lightning.checkpoint import AtomicCheckpointIO
from pile_lightning.checkpoint.tree import copy_to_memory

SAVES = pytest.mark.parametrize("save", ["save_checkpoint", "save_shards"])


@pytest.fixture
def gate(monkeypatch):
    """Holds every write of a file back until it is opened; counts those that wait."""
    opened, waiting = threading.Event(), threading.Semaphore(0)
    for name in ("io.write_file", "staging.write_safetensors"):
        module, _, function = f"pile_lightning.checkpoint.{name}".rpartition(".")
        write = getattr(__import__(module, fromlist=[function]), function)

        def wait(*arguments, write=write):
            waiting.release()
            assert opened.wait(60)
            return write(*arguments)

        monkeypatch.setattr(f"pile_lightning.checkpoint.{name}", wait)
    opened.waiting = waiting
    return opened


@SAVES
def test_the_state_may_change_while_it_is_written(tmp_path, gate, save):
    io, path = AtomicCheckpointIO(background=True), tmp_path / "last.ckpt"
    state = {"global_step": 1, "state_dict": {"weight": torch.ones(9)}, "loops": {"done": [1]}}
    getattr(io, save)(state, path)
    assert gate.waiting.acquire(timeout=60)
    state["state_dict"]["weight"].add_(1)
    state["loops"]["done"].append(2)
    state["global_step"] = 2
    assert not path.exists()
    gate.set()
    io.teardown()
    loaded = io.load_checkpoint(path)
    assert (loaded["global_step"], loaded["loops"]) == (1, {"done": [1]})
    assert (loaded["state_dict"]["weight"] == 1).all()


@SAVES
def test_a_second_save_waits_for_the_first_and_the_old_one_stays_meanwhile(tmp_path, gate, save):
    io, path = AtomicCheckpointIO(background=True), tmp_path / "last.ckpt"
    gate.set()
    getattr(io, save)({"global_step": 1, "x": torch.ones(2)}, path)
    io.wait()
    gate.clear()
    getattr(io, save)({"global_step": 2, "x": torch.ones(2)}, path)
    second = threading.Thread(
        target=lambda: getattr(io, save)({"global_step": 3, "x": torch.ones(2)}, path)
    )
    second.start()
    second.join(0.2)
    assert second.is_alive(), "two saves are under way"
    assert AtomicCheckpointIO().load_checkpoint(path)["global_step"] == 1
    gate.set()
    second.join(60)
    io.teardown()
    assert io.load_checkpoint(path)["global_step"] == 3


@SAVES
def test_an_error_of_any_kind_is_a_warning(tmp_path, monkeypatch, save):
    io, path = AtomicCheckpointIO(background=True), tmp_path / "last.ckpt"
    getattr(io, save)({"global_step": 1}, path)
    io.wait()

    def broken(*arguments):
        raise RuntimeError("out of order")

    with monkeypatch.context() as patch:
        patch.setattr("pile_lightning.checkpoint.io.write_file", broken)
        patch.setattr("pile_lightning.checkpoint.staging.put_in_place", broken)
        with pytest.warns(UserWarning, match=r"last.ckpt was not saved: out of order"):
            (getattr(io, save)({"global_step": 2}, path), io.wait())
    assert io.failed(path) == "out of order"
    assert io.load_checkpoint(path)["global_step"] == 1
    getattr(io, save)({"global_step": 3}, path)
    io.teardown()
    assert io.failed(path) is None
    assert io.load_checkpoint(path)["global_step"] == 3


def test_a_copy_shares_what_the_state_shares_and_nothing_with_it():
    weight = torch.nn.Parameter(torch.ones(4, 2))
    state = OrderedDict(embedding=weight.detach(), head=weight.detach(), rows=weight[1:].detach())
    state._metadata = {"": {"version": 1}}
    copied = copy_to_memory({"state_dict": state, "betas": (0.9, torch.ones(1))})["state_dict"]
    assert copied["embedding"].data_ptr() == copied["head"].data_ptr() != weight.data_ptr()
    assert type(copied) is OrderedDict
    assert copied._metadata == state._metadata
    weight.data.zero_()
    assert all((value == 1).all() for value in copied.values())
