"""Whether members are stacked is tried out, and nothing is left of the trial."""

import copy
import re
import time

import pytest
import torch

from pile_lightning import CausalLM, DecoderConfig
from pile_lightning.modules.stacked import Stack, choose_stack
from tests.modules.members import (
    SEQ,
    SMALL,
    VOCAB,
    make_batch,
    make_member,
)


class Sleeps(CausalLM):
    def loss_sum(self, batch):
        time.sleep(0.05)  # once as one, and as often as there are members one after another
        return super().loss_sum(batch)


@pytest.mark.parametrize("faster", ["as one", "one after another"])
def test_the_faster_way_is_chosen_and_nothing_is_left_of_the_trial(faster, monkeypatch):
    config = DecoderConfig(d_model=32, num_layers=1, dropout=0.1)
    kind = Sleeps if faster == "as one" else CausalLM
    members = [kind(network=config, vocab_size=VOCAB, max_seq_len=SEQ) for _ in range(3)]
    for member in members:
        member.configure_model()
    if faster != "as one":
        call = Stack.__call__
        monkeypatch.setattr(Stack, "__call__", lambda *given: time.sleep(0.1) or call(*given))
    before = torch.get_rng_state(), copy.deepcopy(members[0].state_dict())
    choice = choose_stack(members, make_batch(), seconds=0)
    assert choice.reason.startswith(f"{faster}: a step of 3 members takes ")
    assert (choice.stack is not None) == (faster == "as one")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(p.grad is None for member in members for p in member.parameters())
    for name, weight in members[0].state_dict().items():
        assert torch.equal(weight, before[1][name])
    held = members[0].network.norm.weight.untyped_storage().nbytes()
    assert held == 4 * 32 * (3 if faster == "as one" else 1)


class Looks(CausalLM):
    def loss_sum(self, batch):
        loss = super().loss_sum(batch)
        return loss if loss > 0 else -loss


class Sorts(CausalLM):
    def loss_sum(self, batch):
        # the members' axis is not to be seen, but a number of the first may be kept
        loss = super().loss_sum(batch)
        return loss * (1.0 if torch.overrides.has_torch_function((loss,)) else 2.0)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Looks, r"one after another: torch.vmap cannot take these networks"),
        (Sorts, r"one after another: as one, a loss is 5.0e-01 of itself off"),
    ],
)
def test_what_torch_vmap_cannot_take_is_computed_one_after_another(kind, words):
    members = [kind(network=SMALL, vocab_size=VOCAB, max_seq_len=SEQ) for _ in range(2)]
    for member in members:
        member.configure_model()
    choice = choose_stack(members, make_batch(), seconds=0)
    assert choice.stack is None
    assert re.match(words, choice.reason), choice.reason


def test_members_of_other_shapes_are_not_tried():
    members = [make_member(), make_member(network=DecoderConfig(d_model=64, num_layers=2))]
    choice = choose_stack(members, make_batch())
    assert choice.stack is None
    assert choice.reason.startswith("one after another: members 0 and 1 differ")
