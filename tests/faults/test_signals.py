"""Signals to two ranks, at every kind of moment and many times: none of them costs a step."""

import os
import signal
import time

import pytest
import torch

from pile_lightning.callbacks import read_metrics
from pile_lightning.data import TextData
from tests.faults.probe import events

pytestmark = [pytest.mark.dist, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]

SLOW = pytest.mark.slow

MOMENTS = {
    "rank 0": ("step", [0], 1),
    "rank 1": ("step", [1], 1),
    "all ranks": ("step", [0, 1], 1),
    "twice": ("step", [0, 1], 2),
    "in a save": ("save", [0, 1], 1),
    "in a save, rank 1": ("save", [1], 1),
    "in a validation": ("validation", [0, 1], 1),
    "in a validation, rank 1": ("validation", [1], 1),
}
CASES = [
    pytest.param(2, "rank 1", "TERM"),
    *[pytest.param(10, moment, "TERM", marks=SLOW) for moment in MOMENTS],
    pytest.param(10, "all ranks", "USR1", marks=SLOW),
]


def last(run):
    return torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize(("rounds", "moment", "kind"), CASES)
def test_any_signal_to_any_rank_ends_all_of_them_in_good_order(rounds, moment, kind, ranks):
    event, signalled, times = MOMENTS[moment]
    number = signal.Signals[f"SIG{kind}"]
    run, slowest, steps = ranks(), 0.0, 10 * rounds
    for round_ in range(rounds):
        run.start(max_steps=steps)
        run.wait_for(event, times=1 + round_ % 2, rank=signalled[-1])
        time.sleep(0.01 * (round_ % 4))
        for _ in range(times):
            for rank in signalled:
                os.kill(run.pids[rank], number)
        since = time.monotonic()
        done = max(step for rank in (0, 1) for _, _, step in events(run.folder, rank))
        assert run.finish() == [85, 85], run.said()
        slowest = max(slowest, time.monotonic() - since)
        step = last(run)["global_step"]
        assert done <= step <= done + 1
        assert f"left after step {step}, which is saved (exit code 85)" in run.said()
        assert events(run.folder)[-1][2] == step
    assert step < steps, "the last signal came too late to prove anything"
    print(f"{moment}: {rounds} of {rounds}, at most {slowest:.2f} s from the signal to the end")
    whole = ranks("whole")
    assert whole.start(max_steps=steps).finish() == [0, 0], whole.said()
    assert run.start(max_steps=steps).finish() == [0, 0], run.said()
    ended, uninterrupted = last(run), last(whole)
    assert ended["global_step"] == uninterrupted["global_step"] == steps
    assert ended["TextData"]["rows"] == uninterrupted["TextData"]["rows"]
    for name, value in uninterrupted["state_dict"].items():
        assert torch.equal(value, ended["state_dict"][name]), name
    metrics = [read_metrics(each.folder / "metrics.csv") for each in (run, whole)]
    assert metrics[0] == metrics[1]


def test_a_signal_to_a_rank_and_its_loader_workers_costs_no_step_either(ranks):
    run = ranks(ranks=1)
    alone = {"devices": 1, "strategy": "auto", "num_workers": 2, "max_steps": 200}
    run.start(**alone)
    run.wait_for("step", times=3)
    os.killpg(run.pids[0], signal.SIGTERM)
    assert run.finish() == [85], run.said()
    assert 3 <= last(run)["global_step"] < 200


@pytest.mark.parametrize("who", [0, 1])
def test_a_signal_to_one_rank_as_the_first_batch_is_made_ends_both(who, ranks, monkeypatch):
    load = TextData.train_dataloader

    def tell_and_load(data):
        if data.trainer.global_rank == who:
            os.kill(os.getpid(), signal.SIGTERM)
        return load(data)

    monkeypatch.setattr(TextData, "train_dataloader", tell_and_load)
    run = ranks()
    assert run.start(max_steps=8).finish(30) == [85, 85], run.said()
    assert not (run.folder / "checkpoints").exists()
