"""Members find their ranks by sizes and couplings alone, and what ranks hold makes a whole."""

import pytest
import torch
from lightning import Trainer

from pile_lightning.modules import CausalLM, Distillation, Ensemble, MutualLearning, SharedPart
from pile_lightning.modules.environment.parts import join_parts, part_of_members
from pile_lightning.modules.environment.placement import coupled_groups, place
from pile_lightning.parallel import SpreadStrategy
from tests.modules.environment.conftest import SEQ, UNLIKE, VOCAB, ToyData, member

SIZES = {"a": 5, "b": 1, "c": 4, "d": 4, "e": 2}


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
def test_every_rank_has_members_and_none_has_too_many(num_ranks):
    ranks = place([[name] for name in SIZES], SIZES, num_ranks=num_ranks)
    loads = [sum(SIZES[n] for n in SIZES if ranks[n] == rank) for rank in range(num_ranks)]
    assert ranks.keys() == SIZES.keys()
    assert min(loads) > 0
    # what greedy placement promises: no rank is above the mean by more than the largest group
    assert max(loads) <= sum(SIZES.values()) / num_ranks + max(SIZES.values())
    assert place([[name] for name in SIZES], SIZES, num_ranks=num_ranks) == ranks


def test_the_loads_are_even_where_they_can_be():
    ranks = place([[name] for name in SIZES], SIZES, num_ranks=2)
    assert sum(SIZES[name] for name in SIZES if ranks[name] == 0) == 8


def test_coupled_members_are_one_group_also_by_way_of_others():
    taught = Distillation(teacher="e", students=["a"])
    mutual = MutualLearning(members=["c", "e"])
    scored = [Ensemble(members=["b"]), Ensemble(members=["d"])]
    assert coupled_groups(list(SIZES), [taught, mutual]) == [["a", "c", "e"], ["b"], ["d"]]
    assert coupled_groups(list(SIZES), scored) == [["a"], ["b", "d"], ["c"], ["e"]]
    shared = [SharedPart(part="blocks", members=["b", "d"])]
    assert coupled_groups(list(SIZES), [taught], shared) == [["a", "e"], ["b", "d"], ["c"]]
    ranks = place(coupled_groups(list(SIZES), [taught, mutual]), SIZES, num_ranks=2)
    assert ranks == {"a": 0, "c": 0, "e": 0, "d": 1, "b": 1}


@pytest.mark.parametrize(
    ("couplings", "said"),
    [
        ([], "6 ranks for 5 members: .* use trainer.devices up to 5"),
        (
            [MutualLearning(members=["a", "b"]), MutualLearning(members=["c", "d"])],
            "6 ranks for 5 members in 3 groups that couplings or shared parts keep .* up to 3",
        ),
    ],
)
def test_more_ranks_than_members_are_refused(couplings, said):
    with pytest.raises(ValueError, match=said):
        place(coupled_groups(list(SIZES), couplings), SIZES, num_ranks=6)


def test_one_model_is_refused():
    one = CausalLM(vocab_size=VOCAB, max_seq_len=SEQ)
    with pytest.raises(ValueError, match="CausalLM is one model; use trainer.strategy ddp"):
        SpreadStrategy().connect(one)


def test_a_precision_that_scales_all_members_as_one_is_refused(make_environment):
    strategy = SpreadStrategy()
    strategy.precision_plugin = type("Scaled", (), {"precision": "16-mixed"})()
    with pytest.raises(ValueError, match="16-mixed scales the losses of all members as one"):
        strategy.connect(make_environment(UNLIKE))


def test_the_strategy_has_a_short_name():
    trainer = Trainer(strategy="spread", accelerator="cpu", devices=1, logger=False)
    assert isinstance(trainer.strategy, SpreadStrategy)


def test_parts_of_a_checkpoint_make_it_again(make_environment, make_trainer, tmp_path):
    trainer = make_trainer(max_steps=3)
    environment = make_environment({**UNLIKE, "lr=0.1": member()})
    trainer.fit(environment, ToyData())
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    whole = torch.load(tmp_path / "whole.ckpt", weights_only=True)
    names = list(whole["environment"]["members"])
    # as three ranks have it: of others' members nothing that counts
    parts = [part_of_members(whole, names[first::3]) for first in range(3)]
    hollow = {
        **whole,
        "state_dict": {
            n: torch.empty_like(t, device="meta") for n, t in whole["state_dict"].items()
        },
        "optimizer_states": [{**each, "state": {}} for each in whole["optimizer_states"]],
        "environment": {**whole["environment"], "members": dict.fromkeys(names)},
    }
    joined = join_parts(hollow, parts)
    assert joined.keys() == whole.keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(joined["state_dict"][name], value)
    assert list(joined["state_dict"]) == list(whole["state_dict"])
    (own,), (its,) = joined["optimizer_states"], whole["optimizer_states"]
    assert own["param_groups"] == its["param_groups"]
    assert list(own["state"]) == sorted(its["state"])
    assert sum(len(part["optimizer_states"][0]["state"]) for part in parts) == len(its["state"])
    assert joined["environment"]["members"] == whole["environment"]["members"]


def test_a_network_without_memory_has_the_names_and_sizes_and_changes_no_weights(make_environment):
    outlined, plain = (make_environment(UNLIKE) for _ in range(2))
    for name in UNLIKE:
        plain.roster[name].configure_model()
        outlined.roster[name].outline()
        shapes = {n: p.shape for n, p in plain.roster[name].module.named_parameters()}
        found = dict(outlined.roster[name].module.named_parameters())
        assert {n: p.shape for n, p in found.items()} == shapes
        assert all(p.is_meta for p in found.values())
        outlined.roster[name].configure_model()
    for name, value in plain.state_dict().items():
        assert torch.equal(outlined.state_dict()[name], value)
