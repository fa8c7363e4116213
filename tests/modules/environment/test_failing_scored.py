"""A member that cannot be scored is stopped alone, and the others are scored as without it."""

import warnings

import pytest

from pile_lightning.modules import Ensemble
from tests.modules.environment.conftest import UNLIKE, ToyData, assert_equal, member

KIND = "tests.modules.environment.members.BreaksScored"
OTHERS = {name: UNLIKE[name] for name in ("plain", "dropping")}
# of two batches a validation: at once, in the midst of one, and in the second one
BREAKS = [(0, 3), pytest.param(1, 3, marks=pytest.mark.slow), (2, 6)]


@pytest.mark.parametrize(("at", "step"), BREAKS)
def test_it_does_not_change_the_others(at, step, make_environment, make_trainer):
    both = make_environment({"bad": member(kind=KIND, at=at), **OTHERS})
    trainer, without = make_trainer(), make_trainer()
    with pytest.warns(UserWarning, match=f"'bad' stops, with the weights of step {step}: in val"):
        trainer.fit(both, ToyData())
    alone = make_environment(OTHERS)
    without.fit(alone, ToyData())
    for name in OTHERS:
        assert_equal(alone.roster[name].module, both.roster[name].module)
        one, two = (vars(each.roster[name].fate) for each in (alone, both))
        assert one == two
    scores = {n: v for n, v in trainer.callback_metrics.items() if n.startswith("val/")}
    for name, value in without.callback_metrics.items():
        assert not name.startswith("val/") or scores[name] == value
    fate = both.roster["bad"].fate
    assert fate.stopped_step == step
    assert fate.reason == f"in validation, RuntimeError: cannot be scored {at + 1}"
    assert fate.scored_step == (3 if step == 6 else None)


def test_what_is_scored_together_goes_on_without_it(make_environment, make_trainer):
    together = [Ensemble(members=("bad", "plain"))]
    environment = make_environment({"bad": member(kind=KIND), **OTHERS}, coupling=together)
    trainer = make_trainer(max_steps=3)
    with pytest.warns(UserWarning, match="'bad' stops"):
        trainer.fit(environment, ToyData())
    metrics = trainer.callback_metrics
    assert metrics["val/ensemble/bits_per_byte"] == metrics["val/plain/bits_per_byte"]


def test_the_last_one_raises(make_environment, make_trainer):
    warnings.filterwarnings("ignore", message=".*stops, with the weights.*")
    with pytest.raises(RuntimeError, match="was the last that trained.*cannot be scored 1"):
        make_trainer().fit(make_environment({"bad": member(kind=KIND)}), ToyData())


@pytest.mark.parametrize("kind", ["validate", "test"])
def test_beside_training_it_is_left_out(kind, make_environment, make_trainer):
    environment = make_environment({"bad": member(kind=KIND), **OTHERS})
    run = getattr(make_trainer(), kind)
    data = ToyData()
    data.test_dataloader = data.val_dataloader
    with pytest.warns(UserWarning, match="member 'bad' could not be scored, unlike the others"):
        [scores] = run(environment, data, verbose=False)
    prefix = {"validate": "val", "test": "test"}[kind]
    assert f"{prefix}/plain/loss" in scores
    assert f"{prefix}/bad/loss" not in scores
    assert environment.roster["bad"].trains
    with pytest.raises(RuntimeError, match="no member could be scored; 'bad' failed with Runtime"):
        getattr(make_trainer(), kind)(
            make_environment({"bad": member(kind=KIND)}), data, verbose=False
        )
