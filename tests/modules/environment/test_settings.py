"""What members are to be: sweeps and their names, and one clear message for each mistake."""

import copy

import pytest
import torch

from pile_lightning.modules import (
    CausalLM,
    Distillation,
    Ensemble,
    Environment,
    Halving,
    MutualLearning,
)
from pile_lightning.modules.environment.together import refuse_sharding
from pile_lightning.nn import DecoderConfig
from pile_lightning.optim import AdamWConfig, MuonConfig
from pile_lightning.parallel import ShardedStrategy
from tests.modules.environment.conftest import SEQ, UNLIKE, VOCAB, member

ONE = {"one": member()}
OWN = "tests.modules.environment.members."
SMALL = {"network": DecoderConfig(d_model=32, num_layers=1)}


def swept(**settings):
    return {"base": member(), **settings}


MISTAKES = {
    "no members": ({}, "an environment needs members"),
    "an unknown class": ({"members": {"one": member(kind="CausalML")}}, "did you mean 'CausalLM'"),
    "a module that is none": (
        {"members": {"one": {"class_path": "nowhere.Model"}}},
        "'nowhere.Model' cannot be imported",
    ),
    "a class of something else": (
        {"members": {"one": {"class_path": "torch.nn.Linear"}}},
        "member 'one': torch.nn.Linear is not derived from LanguageModule",
    ),
    "no class": ({"members": {"one": {"init_args": {}}}}, "say what it is by class_path"),
    "a key that is none": (
        {"members": {"one": member() | {"sed": 1}}},
        "member 'one': 'sed' is not a setting here; did you mean 'seed'",
    ),
    "a field that is none": (
        {"members": {"one": member(network={"dmodel": 3})}},
        "member 'one': 'dmodel' is not a setting here; did you mean 'd_model'",
    ),
    "a dotted field": (
        swept(sweep={"seed": [1]}) | {"base": member() | {"init_args": {"network.d_model": 64}}},
        "'network.d_model' cannot be set by itself on the command line",
    ),
    "a wrong type": (
        {"members": {"one": member("wide")}},
        "member 'one': .*d_model: expected int, got wide",
    ),
    "a seed that is none": ({"members": {"one": member(seed="x")}}, "seed='x' is no int"),
    "a negative clip": ({"members": {"one": member(clip=-1)}}, "from 0 on"),
    "a name for no file": ({"members": {"a/b": member()}}, "make it of letters"),
    "names that differ in dots": (
        {"members": {"a.b": member(), "a_b": member()}},
        "'a_b' has the name of another but for dots",
    ),
    "a base without a sweep": ({"base": member()}, "base is given without sweep"),
    "a sweep without a base": ({"sweep": {"seed": [1]}}, "sweep is given without base"),
    "a swept field that is none": (
        swept(sweep={"optimizer.lrr": [1, 2]}),
        "sweep: 'lrr' is not a setting here; did you mean 'lr'",
    ),
    "another": (
        swept(sweep={"netwrk.d_model": [32]}),
        "'netwrk.d_model' is not a setting here; did you mean 'network.d_model'",
    ),
    "a sweep of no list": (swept(sweep={"seed": 1}), "give a list of the values to try"),
    "an empty sweep": (swept(sweep=[]), "there is nothing to try"),
    "a sweep that repeats": (
        swept(sweep={"seed": [1, 1]}),
        "two members would have the name 'seed=1'",
    ),
    "a name of both": (
        swept(sweep={"seed": [1]}, members={"seed=1": member()}),
        "two members have the name 'seed=1'",
    ),
    "another vocabulary": (
        {"members": {"one": member(vocab_size=7)}},
        "member 'one' has vocab_size=7, and the one stream .* has 31",
    ),
    "a shorter context": (
        {"members": {"one": member(max_seq_len=3)}},
        "member 'one' has max_seq_len=3",
    ),
    "a training step": (
        {"members": {"one": member(kind=OWN + "OwnStep")}},
        "OwnStep overrides training_step",
    ),
    "a sweep over the data": (
        {"base": member(), "sweep": {"data.seed": [0, 1]}},
        "'data.seed' is the run's: all members read the same rows, in one order",
    ),
    "a coupling of nobody": (
        {"members": ONE, "coupling": [Distillation(teacher="one", students=["two"])]},
        "coupling Distillation names 'two', and there is no such member; there are one",
    ),
    "a coupling without logits": (
        {
            "members": ONE | {"mute": member(kind=OWN + "NoLogits")},
            "coupling": [MutualLearning(members=["one", "mute"])],
        },
        "member 'mute' is coupled by its logits, which NoLogits",
    ),
    "a name that is taken": (
        {"members": {"ensemble": member()}, "coupling": [Ensemble(members=["ensemble"])]},
        "a member is called 'ensemble'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_at_once(mistake):
    settings, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        Environment(**copy.deepcopy(settings), vocab_size=VOCAB, max_seq_len=SEQ)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Halving(at=[]), "give the steps"),
        (lambda: Halving(at=[4, 2]), "in order"),
        (lambda: Halving(at=[1], keep=1), "between 0 and 1"),
        (lambda: Distillation(teacher="a", students=["a"]), "not the teacher itself"),
        (lambda: Distillation(teacher="a", students=["b"], weight=-1), "have to be above 0"),
        (lambda: MutualLearning(members=["a", "b"], begin=1.0), "begin=1.0 .* to below 1"),
        (lambda: MutualLearning(members=["a", "a"]), "at least two"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_strategies_that_shard_are_refused():
    with pytest.raises(ValueError, match="ShardedStrategy spreads one network over ranks"):
        refuse_sharding(ShardedStrategy(shard=2))


def names(**settings):
    environment = Environment(**settings, vocab_size=VOCAB, max_seq_len=SEQ)
    return [each.name for each in environment.roster]


def test_names_say_what_differs():
    base = {"class_path": "CausalLM", "init_args": SMALL}
    adam = {"class_path": "pile_lightning.optim.AdamWConfig", "init_args": {"lr": 0.5}}
    assert names(base=base, sweep={"optimizer.lr": [0.01, 1e-05], "seed": [0]}) == [
        "lr=0.01",
        "lr=1e-05",
    ]
    assert names(base=base, sweep={"optimizer": [adam, "MuonConfig"]}) == [
        "optimizer=AdamWConfig-lr-0.5",
        "optimizer=MuonConfig",
    ]
    assert names(base=base, sweep=[{"seed": 1}, {"seed": 2, "compile": False}]) == [
        "seed=1",
        "seed=2,compile=false",
    ]
    assert names(base=base, sweep={"optimizer.weight_decay": [0, 1], "network.dropout": [0]}) == [
        "weight_decay=0",
        "weight_decay=1",
    ]
    last = {"network.attention.bias": [True, False], "network.feed_forward.bias": [True]}
    assert names(base=base, sweep=last | {"network.feed_forward.bias": [True, False]})[0] == (
        "network.attention.bias=true,network.feed_forward.bias=true"
    )


def test_a_sweep_sets_its_fields_and_no_other():
    environment = Environment(
        base={"class_path": "CausalLM", "init_args": SMALL, "seed": 5},
        sweep={"optimizer.lr": [0.25, "5e-1"], "network.d_model": [64], "gradient_clip_val": [2]},
        members={"plain": CausalLM(**SMALL, vocab_size=VOCAB, max_seq_len=SEQ)},
        vocab_size=VOCAB,
        max_seq_len=SEQ,
    )
    plain, *of_sweep = environment.roster
    assert plain.module.optimizer_config == MuonConfig()
    assert plain.seed == torch.initial_seed()
    for each, rate in zip(of_sweep, (0.25, 0.5), strict=True):
        assert each.module.optimizer_config == MuonConfig(lr=rate)
        assert each.module.network_config == DecoderConfig(d_model=64, num_layers=1)
        assert (each.seed, each.spec.gradient_clip_val) == (5, 2)


def test_a_module_is_taken_as_it_is(make_environment):
    given = CausalLM(**SMALL, vocab_size=VOCAB, max_seq_len=SEQ, optimizer=AdamWConfig(lr=0.125))
    environment = Environment({"given": given}, vocab_size=VOCAB, max_seq_len=SEQ)
    assert environment.roster["given"].module is given
    again = Environment(**environment.hparams)
    assert again.roster["given"].module.optimizer_config == AdamWConfig(lr=0.125)
    assert again.hparams == environment.hparams


def test_hyper_parameters_are_plain_and_give_the_same_members(make_environment, tmp_path):
    environment = make_environment(UNLIKE, coupling=[Ensemble(members=["plain", "wide"])])
    torch.save(dict(environment.hparams), tmp_path / "settings")
    plain = torch.load(tmp_path / "settings", weights_only=True)
    again = Environment(**plain)
    assert again.couplings.couplings == environment.couplings.couplings
    for one, two in zip(environment.roster, again.roster, strict=True):
        assert one.module.hparams == two.module.hparams
        assert (one.seed, one.spec.plain()) == (two.seed, two.spec.plain())
