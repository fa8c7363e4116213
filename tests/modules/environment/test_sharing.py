"""Several tasks on one trunk: its gradient is the sum of theirs, and all else is each one's own."""

import copy
import warnings

import pytest
import torch
from lightning import Callback

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.modules import CausalLM, Environment, Halving, SharedPart
from tests.modules.environment.conftest import MUON, SEQ, VOCAB, ToyData, assert_equal, member
from tests.modules.environment.test_checkpoints import FromRow, SaveAt

OWN = "tests.modules.environment.members."
SGD = {"class_path": OWN + "SGDConfig", "init_args": {"lr": 0.1}}
TASKS = {
    "next": member(optimizer=MUON),
    "before": member(kind=OWN + "Backwards", seed=1, clip=0.5),
}
BLOCKS = [{"part": "blocks", "members": ["next", "before"]}]
CONSTANT = {
    "class_path": "pile_lightning.optim.LinearConfig",
    "init_args": {"warmup": 0, "floor": 1},
}


class First(Callback):
    """Keeps the weights and gradients of the first step."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step == 0:
            self.weights = copy.deepcopy(module.state_dict())
            self.gradients = {n: p.grad.clone() for n, p in module.members.named_parameters()}


def blocks_of(environment, name):
    return dict(environment.roster[name].module.network.blocks.named_parameters())


def test_the_gradient_of_a_shared_part_is_the_sum_of_theirs(make_environment, make_trainer):
    environment = make_environment(TASKS, share=BLOCKS)
    first = First()
    data = ToyData()
    make_trainer(first, max_steps=1).fit(environment, data)
    before = make_environment(TASKS, share=BLOCKS)
    before.configure_model()
    before.load_state_dict(first.weights)
    batch = data.batches[0]
    count = (batch["labels"] != IGNORE_INDEX).sum()
    sums = {}
    for name in TASKS:
        model = before.roster[name].module
        parameters = dict(model.named_parameters())
        found = torch.autograd.grad(model.loss_sum(batch) / count, list(parameters.values()))
        for key, gradient in zip(parameters, found, strict=True):
            shared = key.startswith("network.blocks.")
            sums.setdefault(key if shared else f"{name}.{key}", []).append(gradient)
    for key, gradients in sums.items():
        shared = key.startswith("network.")
        assert len(gradients) == (2 if shared else 1)
        whole = first.gradients[f"next.{key}" if shared else key]
        torch.testing.assert_close(whole, sum(gradients), rtol=1e-5, atol=1e-8)


def test_all_shared_and_one_loss_is_one_model_of_twice_the_loss(make_environment, make_trainer):
    # untied: what is added up in another order is rounded otherwise
    plain = {"optimizer": SGD, "schedule": CONSTANT, "network": {"tie_embeddings": False}}
    bare = make_environment({"one": member(**plain)}).roster["one"].module.built_network
    parts = [name for name, part in bare.named_children() if any(True for _ in part.parameters())]
    two = make_environment(
        {"one": member(**plain), "other": member(seed=5, **plain)},
        share=[SharedPart(part=part, members=("one", "other")) for part in parts],
    )
    twice = make_environment({"one": member(kind=OWN + "Twice", **plain)})
    for environment in (two, twice):
        make_trainer(gradient_clip_val=None).fit(environment, ToyData())
    assert_equal(twice.roster["one"].module, two.roster["one"].module)
    assert_equal(two.roster["one"].module, two.roster["other"].module)
    assert not any(group["params"] for group in two.roster["other"].optimizer.param_groups)


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_member_that_shares_nothing_never_knows(accumulate, make_environment, make_trainer):
    spec = member(48, seed=4)
    both = make_environment({**TASKS, "apart": spec}, share=BLOCKS)
    alone = make_environment({"apart": spec})
    for environment in (both, alone):
        make_trainer(accumulate_grad_batches=accumulate).fit(environment, ToyData())
    assert_equal(alone.roster["apart"].module, both.roster["apart"].module)
    # and the trunk is one, of the owner's seed, with what is each one's own beside it
    assert blocks_of(both, "next").keys() == blocks_of(both, "before").keys()
    for one, two in zip(*(blocks_of(both, n).values() for n in TASKS), strict=True):
        assert one is two
    embeddings = [both.roster[name].module.network.embedding.weight for name in TASKS]
    assert not torch.equal(*embeddings)


def test_the_owners_seed_and_optimizer_are_those_of_the_part(make_environment, make_trainer):
    environment = make_environment(TASKS, share=BLOCKS)
    environment.configure_model()
    alone = make_environment({"next": TASKS["next"]})
    alone.configure_model()
    assert_equal(alone.roster["next"].module, environment.roster["next"].module)
    make_trainer(max_steps=1).fit(environment, ToyData())
    blocks = set(blocks_of(environment, "next").values())
    stepped = {
        name: {p for g in environment.roster[name].optimizer.param_groups for p in g["params"]}
        for name in TASKS
    }
    assert blocks <= stepped["next"]
    assert not blocks & stepped["before"]


def test_tied_weights_stay_tied(make_environment):
    tied = member(network={"tie_embeddings": True})
    share = [SharedPart(part="embedding", members=("one", "other"))]
    environment = make_environment({"one": tied, "other": tied | {"seed": 3}}, share=share)
    environment.configure_model()
    one, other = (environment.roster[name].module.network for name in ("one", "other"))
    assert other.head_weight is one.head_weight


def test_resumed_is_uninterrupted_and_members_load_alone(make_environment, make_trainer, tmp_path):
    environment = make_environment(TASKS, share=BLOCKS)
    make_trainer(SaveAt(4, tmp_path / "saved.ckpt")).fit(environment, FromRow())
    again = Environment(**copy.deepcopy(dict(environment.hparams)))
    make_trainer().fit(again, FromRow(4), ckpt_path=tmp_path / "saved.ckpt", weights_only=True)
    assert_equal(environment, again)
    loaded = Environment.load_from_checkpoint(tmp_path / "saved.ckpt")
    own = Environment.split_checkpoint(torch.load(tmp_path / "saved.ckpt", weights_only=True))
    from tests.modules.environment.members import Backwards

    for name, kind in (("next", CausalLM), ("before", Backwards)):
        torch.save(own[name], tmp_path / "own.ckpt")
        model = kind.load_from_checkpoint(tmp_path / "own.ckpt")
        assert_equal(loaded.roster[name].module, model)
        # it goes on alone, with a trunk of its own
        make_trainer().fit(model, FromRow(4), ckpt_path=tmp_path / "own.ckpt", weights_only=True)
        moved = model.network.embedding.weight
        assert not torch.equal(moved, loaded.roster[name].module.network.embedding.weight)


@pytest.mark.parametrize("engine", ["stacked", pytest.param("auto", marks=pytest.mark.slow)])
def test_other_engines_leave_those_that_share_alone(engine, make_environment, make_trainer):
    members = {**TASKS, "one": member(seed=5), "two": member(seed=6)}
    found = []
    for name in ("sequential", engine):
        environment = make_environment(members, share=BLOCKS, engine=name)
        make_trainer().fit(environment, ToyData())
        found.append(environment.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["Diverges", "Breaks"])
@pytest.mark.parametrize("owner", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_part_goes_on_when_one_that_shares_it_stops(kind, owner, make_environment, make_trainer):
    warnings.filterwarnings("ignore", message=".*(has a loss or gradient|leave this step).*")
    members = {"bad": member(kind=OWN + kind, at=2, seed=8), **TASKS}
    names = ["bad", "next", "before"] if owner else ["next", "bad", "before"]
    environment = make_environment(members, share=[{"part": "blocks", "members": names}])
    trainer = make_trainer(max_steps=8, val_check_interval=8)
    trainer.callbacks[0].max_in_a_row = 2
    with pytest.warns(UserWarning, match="but for its blocks, which goes on training with 'next'"):
        trainer.fit(environment, ToyData())
    assert environment.roster["bad"].fate.stopped_step == 2
    skipped = 2 if kind == "Diverges" else 1
    for name in TASKS:
        assert environment.roster[name].trains
        assert environment.roster[name].fate.skipped_steps == skipped
        assert environment.roster[name].fate.in_a_row == 0
    state = environment.roster[names[0]].optimizer.state
    for parameter in blocks_of(environment, "next").values():
        assert parameter.isfinite().all()
        if "step" in state[parameter]:
            assert state[parameter]["step"] == 8 - skipped


class Spoil(Callback):
    """Spoils a gradient that is shared, of the second step, while all losses are finite."""

    def on_after_backward(self, trainer, module):
        if trainer.global_step == 1:
            next(iter(blocks_of(module, "next").values())).grad.fill_(torch.inf)
            self.weights = copy.deepcopy(module.members.state_dict())

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step == 2:
            for name, weight in module.members.state_dict().items():
                assert torch.equal(weight, self.weights[name]), name


def test_a_shared_gradient_that_is_not_finite_is_left_out_by_all(make_environment, make_trainer):
    warnings.filterwarnings("ignore", message=".*has a loss or gradient.*")
    environment = make_environment(TASKS, share=BLOCKS)
    make_trainer(Spoil(), max_steps=3).fit(environment, ToyData())
    assert [each.fate.skipped_steps for each in environment.roster] == [1, 1]
    assert all(weight.isfinite().all() for weight in environment.state_dict().values())


def test_halving_stops_an_owner_and_not_its_part(make_environment, make_trainer):
    still = {"class_path": "pile_lightning.optim.AdamWConfig", "init_args": {"lr": 0.0}}
    members = {"still": member(seed=3, optimizer=still), "on": member()}
    share = [{"part": "norm", "members": ["still", "on"]}]
    environment = make_environment(members, share=share, halving=Halving(at=[3], keep=0.5))
    make_trainer().fit(environment, ToyData())
    assert environment.roster["still"].fate.stopped_step == 3
    weights = [environment.roster[n].module.network.norm for n in members]
    assert_equal(*weights)


def test_a_frozen_trunk_stays_as_it_is(make_environment, make_trainer):
    trunk = CausalLM(**_settings(make_environment), vocab_size=VOCAB, max_seq_len=SEQ)
    trunk.configure_model()
    trunk.freeze()
    before = copy.deepcopy(trunk.state_dict())
    share = [{"part": "blocks", "members": ["trunk", "next", "before"]}]
    members = {"trunk": trunk, **copy.deepcopy(TASKS)}
    environment = Environment(members, vocab_size=VOCAB, max_seq_len=SEQ, share=share)
    make_trainer().fit(environment, ToyData())
    for name, value in trunk.state_dict().items():
        assert torch.equal(value, before[name])
    for one, two in zip(
        trunk.network.blocks.parameters(), blocks_of(environment, "next").values(), strict=True
    ):
        assert one is two


def _settings(make_environment):
    return dict(make_environment({"one": member()}).roster["one"].spec.settings)


MISTAKES = {
    "no member": ([{"part": "blocks", "members": ["next", "befor"]}], "mean 'before'"),
    "no part": (
        [{"part": "block", "members": ["next", "before"]}],
        "of 'next' has no part 'block'; did you mean 'blocks'",
    ),
    "one": ([{"part": "blocks", "members": ["next"]}], "name two at least, each of them once"),
    "twice": ([{"part": "blocks", "members": ["next", "next"]}], "name two at least"),
    "unlike": (
        [{"part": "blocks", "members": ["next", "wide"]}],
        r"is \(.*\) in 'wide' and \(.*\) in 'next'; give both the same settings",
    ),
    "deeper": (
        [{"part": "blocks", "members": ["next", "deep"]}],
        "is .* in 'deep' and not there in 'next'",
    ),
    "overlap": ([*BLOCKS, {"part": "blocks.0", "members": ["deep", "next"]}], "overlap; share the"),
    "no setting": ([{"parts": "blocks", "members": ["next", "before"]}], "has to say part and mem"),
    "frozen": ([{"part": "blocks", "members": ["next", "ice"]}], "name 'ice' first: then the"),
}


@pytest.mark.parametrize(("share", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_said(share, message, make_environment):
    ice = CausalLM(vocab_size=VOCAB, max_seq_len=SEQ)
    ice.configure_model()
    ice.freeze()
    members = copy.deepcopy(TASKS) | {
        "wide": member(48),
        "deep": member(network={"num_layers": 2}),
        "ice": ice,
    }
    with pytest.raises(ValueError, match=message):
        Environment(members, vocab_size=VOCAB, max_seq_len=SEQ, share=share).configure_model()
