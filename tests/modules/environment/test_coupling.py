"""Members that learn from one another do so, and nobody else notices."""

import math

import pytest
import torch
from lightning import Callback

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.modules import Distillation, Ensemble, MutualLearning
from pile_lightning.modules.environment.coupling import divergence
from tests.modules.environment.conftest import ToyData, assert_equal, make_batches, member

COARSE = {"class_path": "pile_lightning.optim.AdamWConfig", "init_args": {"eps": 0.01}}
PAIR = {"big": member(48), "small": member(seed=1), "twin": member(seed=1)}
TEACHES = Distillation(teacher="big", students=["small"], weight=2.0, temperature=2.0)


def test_a_teacher_and_those_who_are_not_taught_train_as_they_would_alone(
    make_environment, make_trainer
):
    alone, taught = make_environment(PAIR), make_environment(PAIR, coupling=[TEACHES])
    trainers = make_trainer(), make_trainer()
    for environment, trainer in zip((alone, taught), trainers, strict=True):
        trainer.fit(environment, ToyData())
    # the term is no part of the loss that is told: over two steps it would double it
    told = [float(each.callback_metrics["train/small/loss"]) for each in trainers]
    assert told[1] == pytest.approx(told[0], rel=0.1)
    for name in ("big", "twin"):
        assert_equal(alone.roster[name].module, taught.roster[name].module)
    with pytest.raises(AssertionError):
        assert_equal(alone.roster["small"].module, taught.roster["small"].module)


class Watch(Callback):
    """Keeps a weight of each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, *_):
        weight = module.roster["small"].module.built_network.head_weight
        self.seen.append(weight.detach().clone())


def test_until_it_begins_a_coupling_does_nothing_and_then_what_it_always_does(
    make_environment, make_trainer
):
    late = Distillation(teacher="big", students=["small"], begin=0.5)
    watches = []
    for coupling in ([], [late]):
        watches.append(Watch())
        make_trainer(watches[-1]).fit(make_environment(PAIR, coupling=coupling), ToyData())
    same = [torch.equal(*each) for each in zip(*(w.seen for w in watches), strict=True)]
    assert same == [True, True, True, False, False, False]


def logits_of(environment, batch):
    return {each.name: each.module(batch) for each in environment.roster}


def test_a_student_comes_nearer_to_its_teacher(make_environment, make_trainer):
    environment = make_environment(PAIR, coupling=[TEACHES])
    make_trainer(max_steps=20).fit(environment, ToyData())
    (batch,) = make_batches(1, rows=16)
    with torch.no_grad():
        logits = logits_of(environment, batch)
    taught = divergence(logits["small"], logits["big"], batch)
    assert taught < 0.8 * divergence(logits["twin"], logits["big"], batch)


@pytest.mark.parametrize(
    "coupling", [TEACHES, MutualLearning(members=["small", "big", "twin"], temperature=1.5)]
)
def test_terms_are_sums_over_tokens_whatever_the_micro_batches(
    coupling, make_environment, make_trainer
):
    members = {name: member(seed=n, optimizer=COARSE) for n, name in enumerate(PAIR)}
    (rows,) = make_batches(1, rows=8)
    weights = []
    for pieces in (1, 2):
        data = ToyData()
        parts = torch.arange(8).chunk(pieces)
        data.batches = [{name: value[part] for name, value in rows.items()} for part in parts] * 3
        environment = make_environment(members, coupling=[coupling])
        make_trainer(max_steps=3, accumulate_grad_batches=pieces, limit_val_batches=0).fit(
            environment, data
        )
        weights.append(environment.state_dict())
    for name, whole in weights[0].items():
        torch.testing.assert_close(weights[1][name], whole, rtol=1e-5, atol=1e-5)


def test_the_divergence_is_that_of_torch_and_no_gradient_reaches_the_teacher():
    (batch,) = make_batches(1)
    shape = (*batch["labels"].shape, 7)
    student, teacher = (torch.randn(shape, requires_grad=True) for _ in range(2))
    found = divergence(student, teacher, batch, temperature=3.0)
    known = batch["labels"] != IGNORE_INDEX
    expected = 9 * torch.nn.functional.kl_div(
        (student[known] / 3).log_softmax(-1), (teacher[known] / 3).softmax(-1), reduction="sum"
    )
    torch.testing.assert_close(found, expected)
    found.backward()
    assert teacher.grad is None
    assert student.grad[known].any()
    assert not student.grad[~known].any()


def test_a_teacher_that_is_not_finite_teaches_nothing():
    (batch,) = make_batches(1)
    student = torch.randn(*batch["labels"].shape, 7, requires_grad=True)
    found = divergence(student, torch.full_like(student, torch.nan), batch)
    found.backward()
    assert found == 0
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-6)


def test_the_ensemble_is_the_mean_of_probabilities(make_environment, make_trainer):
    environment = make_environment(PAIR, coupling=[Ensemble(members=["big", "small"])])
    data = ToyData()
    trainer = make_trainer(max_steps=3)
    trainer.fit(environment, data)
    nats = num_bytes = 0
    with torch.no_grad():
        for batch in data.batches[:2]:
            logits = logits_of(environment, batch)
            mean = (logits["big"].softmax(-1) + logits["small"].softmax(-1)) / 2
            known = batch["labels"] != IGNORE_INDEX
            chosen = mean[known].gather(-1, batch["labels"][known][:, None])
            nats, num_bytes = nats - chosen.log().sum(), num_bytes + batch["num_bytes"].sum()
    logged = trainer.callback_metrics["val/ensemble/bits_per_byte"]
    torch.testing.assert_close(logged, nats / math.log(2) / num_bytes)


@pytest.mark.filterwarnings("ignore:.*has a loss or gradient")
def test_a_student_goes_on_when_its_teacher_is_stopped(make_environment, make_trainer):
    broken = member(48, kind="tests.modules.environment.members.Diverges", at=3)
    environment = make_environment(PAIR | {"big": broken}, coupling=[TEACHES])
    trainer = make_trainer()
    trainer.callbacks[0].max_in_a_row = 2
    with pytest.warns(UserWarning, match="member 'big' stops"):
        trainer.fit(environment, ToyData())
    small = environment.roster["small"]
    assert small.trains
    assert small.fate.skipped_steps == 0
