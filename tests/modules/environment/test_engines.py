"""Stacked, members come to what they come to one after another, but for rounding."""

import copy

import pytest
import torch
from lightning import Callback

from pile_lightning.modules import Environment
from pile_lightning.modules.environment import stacking
from pile_lightning.modules.stacked import StackChoice
from tests.modules.environment.conftest import COSINE, MUON, UNLIKE, ToyData, assert_equal, member
from tests.modules.environment.test_checkpoints import FromRow, SaveAt

ALIKE = {
    "plain": member(),
    "reseeded": member(seed=1),
    "fast": member(seed=2, optimizer=MUON, schedule=COSINE, clip=0.5),
    "also_fast": member(seed=3, optimizer=MUON),
}
MIXED = ALIKE | {"dropping": UNLIKE["dropping"], "wide": UNLIKE["wide"]}


class Losses(Callback):
    """Keep the losses of each micro-batch."""

    def __init__(self):
        self.seen = []

    def on_before_backward(self, trainer, module, loss):
        self.seen.append(
            {member.name: float(member.losses[-1]) for member in module.roster if member.losses}
        )


def stacks(environment):
    return [[each.name for each in group] for group, _ in environment.engine._stacks.values()]


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_losses_over_fifty_steps_are_those_of_members_one_after_another(
    accumulate, make_environment, make_trainer
):
    seen = {}
    for engine in ("sequential", "stacked"):
        environment, losses = make_environment(MIXED, engine=engine), Losses()
        trainer = make_trainer(losses, max_steps=50, accumulate_grad_batches=accumulate)
        trainer.fit(environment, ToyData(50 * accumulate))
        seen[engine] = losses.seen
    assert stacks(environment) == [list(ALIKE)]
    assert len(seen["stacked"]) == 50 * accumulate
    for one, other in zip(seen["sequential"], seen["stacked"], strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_members_that_cannot_be_stacked_are_what_they_are_alone(make_environment, make_trainer):
    environment = make_environment(UNLIKE, engine="stacked")
    make_trainer().fit(environment, ToyData())
    assert stacks(environment) == [["plain", "reseeded"]]
    plain = make_environment(UNLIKE)
    make_trainer().fit(plain, ToyData())
    for name in ("wide", "dropping"):
        assert_equal(plain.roster[name].module, environment.roster[name].module)


@pytest.mark.filterwarnings("ignore:.*stops, with the weights.*")
@pytest.mark.filterwarnings("ignore:.*has a loss or gradient.*")
def test_one_that_diverges_leaves_the_stack_and_the_others_go_on(make_environment, make_trainer):
    kind = "tests.modules.environment.members.Diverges"
    members = {name: member(seed=n, kind=kind, at=99) for n, name in enumerate("abc")}
    members["b"] = member(seed=1, kind=kind, at=99, optimizer=member()["init_args"]["optimizer"])
    environment = make_environment(members, engine="stacked")
    trainer = make_trainer(Spoil("b", step=2), max_steps=6)
    trainer.callbacks[0].max_in_a_row = 2
    trainer.fit(environment, ToyData())
    assert environment.roster["b"].fate.stopped_step == 2
    assert stacks(environment) == [["a", "c"]]
    alone = make_environment({name: members[name] for name in "ac"}, engine="stacked")
    make_trainer(max_steps=6).fit(alone, ToyData())
    for name in "ac":
        torch.testing.assert_close(
            dict(environment.roster[name].module.state_dict()),
            dict(alone.roster[name].module.state_dict()),
        )


@pytest.mark.filterwarnings("ignore:.*stops, with the weights.*")
def test_one_that_breaks_is_stopped_alone_and_the_others_are_stacked_again(
    make_environment, make_trainer
):
    kind = "tests.modules.environment.members.Breaks"
    members = {name: member(seed=n, kind=kind, at=99) for n, name in enumerate("abc")}
    environment = make_environment(members, engine="stacked")
    trainer = make_trainer(Wreck("b", step=2), max_steps=6, accumulate_grad_batches=2)
    with pytest.warns(UserWarning, match="members a b c are computed one after another from here"):
        trainer.fit(environment, ToyData())
    assert environment.roster["b"].fate.stopped_step == 2
    assert stacks(environment) == [["a", "c"]]
    assert trainer.global_step == 6


class Wreck(Callback):
    """Move a parameter of a member to where its network cannot use it."""

    def __init__(self, name, *, step):
        self.name, self.step = name, step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step and batch_idx % 2 == 0:
            spoilt = next(module.roster[self.name].module.parameters())
            spoilt.data = spoilt.data[:, :-1].clone()


class Spoil(Callback):
    """Put a number that is none into the weights of a member."""

    def __init__(self, name, *, step):
        self.name, self.step = name, step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(module.roster[self.name].module.parameters()).fill_(float("nan"))


@pytest.mark.parametrize("faster", [False, True])
def test_what_a_timing_decided_holds_for_the_run_that_goes_on(
    faster, monkeypatch, make_environment, make_trainer, tmp_path
):
    def choose(modules, batch, **settings):
        stack = stacking.Stack(modules) if faster else None
        return StackChoice(stack=stack, reason="as it was told")

    monkeypatch.setattr(stacking, "choose_stack", choose)
    environment = make_environment(ALIKE, engine="auto")
    make_trainer(SaveAt(4, tmp_path / "saved.ckpt")).fit(environment, FromRow())
    assert bool(stacks(environment)) == faster
    monkeypatch.delattr(stacking, "choose_stack")
    again = Environment(**copy.deepcopy(dict(environment.hparams)))
    make_trainer().fit(again, FromRow(4), ckpt_path=tmp_path / "saved.ckpt", weights_only=True)
    assert bool(stacks(again)) == faster
    assert_equal(environment, again)


def test_timing_leaves_gradients_and_weights_as_they_were(make_environment, make_trainer):
    seen = {}
    for engine in ("stacked", "auto"):
        environment, losses = make_environment(ALIKE, engine=engine), Losses()
        trainer = make_trainer(losses, accumulate_grad_batches=2)
        trainer.fit(environment, ToyData())
        seen[engine] = losses.seen
    for one, other in zip(seen["stacked"], seen["auto"], strict=True):
        assert one == pytest.approx(other, rel=1e-5)
