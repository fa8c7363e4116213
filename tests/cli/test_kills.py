"""Two ranks killed a hundred times, in whatever they do: each time the run goes on by itself."""

import os
import random
import signal
import socket
import sys
import time
import warnings

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only

from pile_lightning.checkpoint import load_whole, read_summary
from pile_lightning.cli import train
from pile_lightning.cli.runs import checkpoints_of
from tests.checkpoint.worlds import as_one_of_two, context

pytestmark = [pytest.mark.slow, pytest.mark.dist]

KILLS = 25
STRATEGIES = {
    "ddp": ["--trainer.strategy=ddp"],
    "ddp-background": ["--trainer.strategy=ddp", "--checkpoints.background=true"],
    "fsdp2": ["--trainer.strategy=pile_lightning.ShardedStrategy"],
    "fsdp2-background": [
        "--trainer.strategy=pile_lightning.ShardedStrategy",
        "--checkpoints.background=true",
    ],
}


def be_rank(rank, port, folder, arguments):
    """Train as torchrun would have it, in a process that has the imports behind it."""
    with open(f"{folder}/rank-{rank}.log", "a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        as_one_of_two(rank, port)
        os.chdir(folder)
        rank_zero_only.rank = rank
        torch.set_num_threads(1)
        warnings.simplefilter("default")
        train(arguments)


def start(folder, arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        context.Process(target=be_rank, args=(rank, port, str(folder), arguments))
        for rank in (0, 1)
    ]
    for each in ranks:
        each.start()
    return ranks


def finish(folder, arguments):
    for each in (ranks := start(folder, arguments)):
        each.join(300)
    said = "".join(log.read_text()[-5000:] for log in folder.glob("*.log"))
    assert [each.exitcode for each in ranks] == [0, 0], said


def saved_step(path):
    try:
        return read_summary(path)["step"]
    except (FileNotFoundError, ValueError):
        return 0  # not there yet, or replaced while it was read


def kill_once(ranks, last, before, chance):
    """Kill both at a random moment: while they start, or after the next checkpoint."""
    if before and chance.random() < 0.15:
        time.sleep(4 * chance.random())
    else:
        deadline = time.monotonic() + 120
        while saved_step(last) <= before and time.monotonic() < deadline:
            assert all(each.is_alive() for each in ranks)
            time.sleep(0.002)
        time.sleep(0.3 * chance.random())
    for each in chance.sample(ranks, 2):
        assert each.is_alive()
        os.kill(each.pid, signal.SIGKILL)
        time.sleep(0.02 * chance.random())
    for each in ranks:
        each.join()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_again_and_again_is_uninterrupted(strategy, tmp_path, corpus, cache, small):
    os.environ["PILE_CACHE"] = str(cache)
    arguments = [
        "fit",
        *small,
        *STRATEGIES[strategy],
        f"--data.sources={corpus}",
        "--model.network.d_model=16",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
        "--trainer.devices=2",
        "--trainer.limit_val_batches=1",
        "--trainer.val_check_interval=10",
        "--trainer.enable_progress_bar=false",
        "--last_checkpoint.every_n_steps=1",
        "--samples.prompts=[]",
        "--model.schedule.init_args.warmup=0",
        "--model.schedule.init_args.floor=1",  # the same whatever the last step is
        "--ckpt_path=auto",
    ]
    chance = random.Random(0)
    kept, in_a_save = {}, 0
    killed = tmp_path / "killed"
    killed.mkdir()
    last = killed / "run/checkpoints/last.ckpt"
    for _ in range(KILLS):
        ranks = start(killed, [*arguments, "--trainer.max_steps=100000"])
        kill_once(ranks, last, saved_step(last), chance)
        in_a_save += bool(list(last.parent.glob(".*")))
        for path in checkpoints_of(killed / "run"):  # each must be whole: it raises otherwise
            state = load_whole(path, without=["optimizer_states"])
            kept[state["global_step"]] = state["state_dict"]
    steps = saved_step(last) + 4
    finish(killed, [*arguments, f"--trainer.max_steps={steps}"])
    assert not list(last.parent.glob(".*"))
    assert not (killed / "run.1").exists(), "a run began anew"

    whole = tmp_path / "whole"
    whole.mkdir()
    history = "--kept_checkpoints.every_n_steps=1"
    finish(whole, [*arguments, f"--trainer.max_steps={steps}", history])
    kept[steps] = load_whole(last)["state_dict"]
    print(f"{KILLS} kills, {in_a_save} of them in a save, {steps} steps")
    assert in_a_save
    assert len(kept) > KILLS / 2
    for step, weights in kept.items():
        expected = load_whole(whole / f"run/checkpoints/step-{step:08}.ckpt")["state_dict"]
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in weights), step
