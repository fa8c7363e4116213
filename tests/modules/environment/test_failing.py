"""A member that fails is stopped alone, and the others never know."""

import warnings

import pytest
import torch

from pile_lightning.callbacks import SkipNonFinite
from tests.modules.environment.conftest import UNLIKE, ToyData, assert_equal, member

OWN = "tests.modules.environment.members."
CONSTANT = {
    "class_path": "pile_lightning.optim.LinearConfig",
    "init_args": {"warmup": 0, "floor": 1},
}
OTHERS = {name: UNLIKE[name] for name in ("wide", "dropping")}


@pytest.fixture(autouse=True)
def told():
    """Being told of failures is tested where it is the point."""
    for message in (".*has a loss or gradient.*", ".*stops, with the weights.*"):
        warnings.filterwarnings("ignore", message=message)


def failing(kind, **settings):
    return member(kind=OWN + kind, **settings)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("kind", "calls", "reason"),
    [
        ("Breaks", 3, "RuntimeError: broken at call"),
        ("Diverges", 3, "loss or gradients not finite from step"),
    ],
)
def test_a_failing_member_does_not_change_the_others(
    kind, calls, reason, accumulate, make_environment, make_trainer, train_alone
):
    both = {"bad": failing(kind, at=calls * accumulate, schedule=CONSTANT), **OTHERS}
    environment = make_environment(both)
    trainer = make_trainer(accumulate_grad_batches=accumulate)
    trainer.callbacks[0].max_in_a_row = 2
    with pytest.warns(UserWarning, match="member 'bad' stops, with the weights of step 3"):
        trainer.fit(environment, ToyData())
    fate = environment.roster["bad"].fate
    assert fate.stopped_step == 3
    assert reason in fate.reason
    alone = make_environment(OTHERS)
    make_trainer(accumulate_grad_batches=accumulate).fit(alone, ToyData())
    for name in OTHERS:
        assert_equal(alone.roster[name].module, environment.roster[name].module)
    # and it keeps the weights of its last good step
    short, _ = train_alone(
        failing(kind, at=99, schedule=CONSTANT), accumulate_grad_batches=accumulate, max_steps=3
    )
    assert_equal(short, environment.roster["bad"].module)


def test_a_skipped_step_is_that_of_the_same_model_alone(
    make_environment, make_trainer, train_alone
):
    spec = failing("Hiccups", at=3)
    environment = make_environment({"bad": spec, "good": member()})
    trainer = make_trainer()
    with pytest.warns(UserWarning, match="step 3 of member 'bad' has a loss"):
        trainer.fit(environment, ToyData())
    assert environment.roster["bad"].fate.skipped_steps == 1
    assert environment.roster["bad"].trains
    assert trainer.callback_metrics["train/bad/skipped_steps"] == 1
    with pytest.warns(UserWarning, match="step 3 has a loss"):
        alone, _ = train_alone(spec)
    assert_equal(alone, environment.roster["bad"].module)


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("Breaks", RuntimeError, "was the last that trained.*broken at call 4"),
        ("Diverges", FloatingPointError, "was the last that trained.*lower the learning rate"),
    ],
)
def test_the_last_member_raises(kind, error, message, make_environment, make_trainer):
    trainer = make_trainer(max_steps=12)
    trainer.callbacks[0].max_in_a_row = 2
    environment = make_environment({"one": failing(kind), "two": failing(kind)})
    with pytest.raises(error, match=message):
        trainer.fit(environment, ToyData())


def test_gradients_of_a_stopped_member_are_dropped(make_environment, make_trainer):
    environment = make_environment({"bad": failing("Breaks"), "good": member()})
    make_trainer().fit(environment, ToyData())
    optimizer = environment.roster["bad"].optimizer
    steps = [optimizer.state[p]["step"] for g in optimizer.param_groups for p in g["params"]]
    assert all(step == 3 for step in steps)
    assert torch.stack(steps).numel() > 3


def test_members_fail_alone_without_the_callback_too(make_environment, make_trainer):
    environment = make_environment({"bad": failing("Diverges"), "good": member()})
    trainer = make_trainer(max_steps=20)
    trainer.callbacks.remove(next(c for c in trainer.callbacks if isinstance(c, SkipNonFinite)))
    trainer.fit(environment, ToyData())
    assert environment.roster["bad"].fate.stopped_step == 3
    assert environment.roster["bad"].fate.skipped_steps == 10
