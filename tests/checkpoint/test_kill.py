"""Killed at any moment of a save, a checkpoint is there, is whole, and is one that was saved."""

import os
import random
import signal
import time

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from pile_lightning.checkpoint import AtomicCheckpointIO, read_whole
from tests.checkpoint.worlds import context, world


def state_of(step):
    tensors = {f"weight.{n}": torch.full((200, 500), float(step)) for n in range(4)}
    return {"global_step": step, "state_dict": tensors}


def save_for_ever(save, path, background, step):
    io = AtomicCheckpointIO(background=background)
    while True:
        step += 1
        getattr(io, save)(state_of(step), path)


def step_of(path):
    """Load, check that all of it is of one step, and return which."""
    state = AtomicCheckpointIO().load_checkpoint(path)
    step = state["global_step"]
    assert len(state["state_dict"]) == 4
    assert all((value == step).all() for value in state["state_dict"].values())
    return step


def newest_step(path):
    try:
        return AtomicCheckpointIO().summary(path)["step"]
    except (FileNotFoundError, ValueError):
        return 0  # not there yet, or replaced while it was read


@pytest.mark.parametrize(
    "kills", [pytest.param(2, id="few"), pytest.param(50, id="many", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
@pytest.mark.parametrize("save", ["save_checkpoint", "save_shards"])
def test_killed_while_it_saves(tmp_path, save, background, kills):
    path = tmp_path / "checkpoints" / "last.ckpt"
    random_state = random.Random(kills)
    step = leftovers = 0
    for _ in range(kills):
        process = context.Process(target=save_for_ever, args=(save, path, background, step))
        process.start()
        deadline = time.monotonic() + 60
        while newest_step(path) <= step and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05 * random_state.random())
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        now = step_of(path)
        assert now > step
        step = now
        leftovers += len(list(path.parent.iterdir())) > 1
    assert step >= kills
    assert leftovers or kills < 10, "no kill came in the middle of a save"
    getattr(AtomicCheckpointIO(), save)(state_of(step + 1), path)
    assert step_of(path) == step + 1
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("moment", range(1, 40))
def test_killed_at_each_step_of_replacing_a_folder(tmp_path, monkeypatch, moment):
    """Every rename, removal and creation of a file is one moment to be killed before."""
    path = tmp_path / "last.ckpt"
    io = AtomicCheckpointIO()
    for step in (1, 2):
        io.save_shards(state_of(step), path)
    count = 0

    def killed(function):
        def call(*arguments, **settings):
            nonlocal count
            count += 1
            if count >= moment:
                raise KeyboardInterrupt  # from here on nothing works, as for a dead process
            return function(*arguments, **settings)

        return call

    with monkeypatch.context() as patch:
        for name in ("mkdir", "rename", "unlink", "rmdir", "open", "fsync", "replace"):
            patch.setattr(os, name, killed(getattr(os, name)))
        died = False
        try:
            io.save_shards(state_of(3), path)
        except KeyboardInterrupt:
            died = True
    assert step_of(path) in ((2, 3) if died else (3,))
    io.save_shards(state_of(4), path)
    assert step_of(path) == 4
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]
    assert read_whole(path)["global_step"] == 4


def save_for_ever_together(rank, folder, background, step, path):
    with world(folder, f"from {step}", rank, 2):
        mesh = init_device_mesh("cpu", (2,))
        io = AtomicCheckpointIO(background=background)
        while True:
            step += 1
            state = state_of(step)
            weights = state["state_dict"]
            for name in list(weights)[:2]:
                weights[name] = distribute_tensor(weights[name], mesh, [Shard(0)])
            io.save_shards(state, path)


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
def test_two_ranks_killed_while_they_save_together(tmp_path, background):
    path = tmp_path / "checkpoints" / "last.ckpt"
    random_state = random.Random(0)
    step = leftovers = 0
    for _ in range(20):
        processes = [
            context.Process(
                target=save_for_ever_together, args=(rank, str(tmp_path), background, step, path)
            )
            for rank in (0, 1)
        ]
        for process in processes:
            process.start()
        deadline = time.monotonic() + 60
        while newest_step(path) <= step and time.monotonic() < deadline:
            time.sleep(0.001)
        for process in random_state.sample(processes, 2):
            time.sleep(0.03 * random_state.random())
            os.kill(process.pid, signal.SIGKILL)
        for process in processes:
            process.join()
        now = step_of(path)
        assert now > step
        step = now
        leftovers += len(list(path.parent.iterdir())) > 1
    assert leftovers, "no kill came in the middle of a save"
    AtomicCheckpointIO().save_shards(state_of(step + 1), path)
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]
