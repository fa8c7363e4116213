"""The worst members stop when it is time, and cost nothing after that."""

import math

import pytest

from pile_lightning.modules import Halving
from tests.modules.environment.conftest import ToyData, assert_equal, member

RATES = {"good": 0.01, "fair": 0.003, "poor": 0.0003, "worst": 0.0}


def adam(lr):
    return {"class_path": "pile_lightning.optim.AdamWConfig", "init_args": {"lr": lr}}


MEMBERS = {
    name: member(kind="tests.modules.environment.members.Breaks", at=99, optimizer=adam(lr))
    for name, lr in RATES.items()
}


@pytest.mark.parametrize(("validated", "by"), [(1, "held-out"), (0, "training")])
def test_the_worst_stop_and_the_others_go_on_as_before(
    validated, by, make_environment, make_trainer
):
    environment = make_environment(MEMBERS, halving=Halving(at=[3, 6], keep=0.5))
    trainer = make_trainer(max_steps=9, limit_val_batches=validated)
    trainer.fit(environment, ToyData(9))
    # four, two, one: of those that have not stopped, each step costs one forward
    calls = {each.name: each.module.calls for each in environment.roster}
    assert calls == {"good": 9, "fair": 6, "poor": 3, "worst": 3}
    fates = {each.name: each.fate for each in environment.roster}
    assert {name: fate.stopped_step for name, fate in fates.items()} == {
        "good": None,
        "fair": 6,
        "poor": 3,
        "worst": 3,
    }
    assert f"halving: place 4 of 4 by {by} loss" in fates["worst"].reason
    assert math.isnan(trainer.callback_metrics["train/worst/loss"])
    whole = make_environment(MEMBERS)
    make_trainer(max_steps=9, limit_val_batches=validated).fit(whole, ToyData(9))
    assert_equal(whole.roster["good"].module, environment.roster["good"].module)
    if validated:
        names = [row["name"] for row in environment.ranking()]
        assert names == ["good", "fair", "poor", "worst"]
        assert fates["poor"].scored_step == 3


def test_halving_counts_steps_not_micro_batches(make_environment, make_trainer):
    environment = make_environment(MEMBERS, halving=Halving(at=[3], keep=0.25))
    make_trainer(max_steps=5, accumulate_grad_batches=2).fit(environment, ToyData(10))
    calls = {each.name: each.module.calls for each in environment.roster}
    assert calls == {"good": 10, "fair": 6, "poor": 6, "worst": 6}
