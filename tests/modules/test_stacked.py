"""What is computed as one is what each member computes alone: losses, gradients, whole runs."""

import copy

import pytest
import torch
from torch import nn

from pile_lightning import DecoderConfig
from pile_lightning.checkpoint import AtomicCheckpointIO
from pile_lightning.modules.stacked import Stack
from pile_lightning.optim import AdamWConfig, CosineConfig, MuonConfig, muon, step_together
from tests.modules.members import (
    NETWORKS,
    SEQ,
    VOCAB,
    assert_same_gradients,
    make_batch,
    make_focal,
    make_member,
    make_members,
    of_losses,
)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_losses_and_gradients_are_those_of_each_alone(network, packed):
    members = make_members(network=network)
    alone = copy.deepcopy(members)
    batch = make_batch(packed=packed)
    losses = Stack(members)(of_losses(batch))
    factors = torch.tensor([0.5, 2.0, 1.0])
    (factors * losses).sum().backward()
    for member, factor, loss in zip(alone, factors, losses.detach(), strict=True):
        own = member.loss_sum(batch)
        torch.testing.assert_close(loss, own.detach(), rtol=1e-6, atol=0)
        (factor * own).backward()
    assert len(set(losses.tolist())) == 3
    assert_same_gradients(members, alone)


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_each_tokens_loss_and_the_logits_are_those_of_each_alone(without_gradients):
    members = make_members()
    batch = make_batch()
    stack = Stack(members)
    with without_gradients():
        nll = stack(lambda member: member.token_nll(batch))
        logits = stack(lambda member: member(batch))
        for number, member in enumerate(members):
            torch.testing.assert_close(nll[number], member.token_nll(batch))
            torch.testing.assert_close(logits[number], member(batch))
    assert not nll.requires_grad
    assert nll.shape == (3, 4, SEQ)
    assert logits.shape == (3, 4, SEQ, VOCAB)


def test_under_autocast_products_are_in_its_type():
    members = make_members()
    batch = make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = Stack(members)(of_losses(batch))
        alone = torch.stack([member.loss_sum(batch) for member in members])
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, alone, rtol=1e-4, atol=0)
    plain = torch.stack([member.loss_sum(batch) for member in members])
    assert (losses - plain).abs().max() > 10 * (losses - alone).abs().max()


def test_gradients_add_up_until_a_member_drops_its_own():
    members = make_members()
    alone = copy.deepcopy(members)
    stack = Stack(members)
    for number in range(3):
        batch = make_batch(seed=number)
        stack(of_losses(batch)).sum().backward()
        for member in alone:
            member.loss_sum(batch).backward()
        if number == 1:
            members[2].zero_grad()
            alone[2].zero_grad()
    assert_same_gradients(members, alone)


def test_what_waits_for_a_members_gradient_gets_it():
    members = make_members()
    seen = []
    for member in members:  # as ddp does
        member.network.norm.weight.register_post_accumulate_grad_hook(
            lambda p, member=member: seen.append((member, p.grad.clone()))
        )
    Stack(members)(of_losses(make_batch())).sum().backward()
    assert {id(member) for member, _ in seen} == {id(member) for member in members}
    for member, gradient in seen:
        assert torch.equal(gradient, member.network.norm.weight.grad)


class Together(nn.Module):
    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.stack = Stack(members)

    def forward(self, batch):
        return self.stack(of_losses(batch)).sum()


def test_ddp_finds_every_gradient(tmp_path):
    members = make_members()
    alone = copy.deepcopy(members)
    file = tmp_path / "store"
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=0, world_size=1)
    try:
        together = nn.parallel.DistributedDataParallel(Together(members))
        for _ in range(2):  # the second raises where the first waits for a gradient
            together.zero_grad()
            together(make_batch()).backward()
    finally:
        torch.distributed.destroy_process_group()
    for member in alone:
        member.loss_sum(make_batch()).backward()
    assert_same_gradients(members, alone)


def test_frozen_parameters_are_stacked_and_get_no_gradient():
    members = make_members()
    for member in members:
        member.network.embedding.requires_grad_(False)
    alone = copy.deepcopy(members)
    batch = make_batch()
    Stack(members)(of_losses(batch)).sum().backward()
    for member in alone:
        member.loss_sum(batch).backward()
    assert members[0].network.embedding.weight.grad is None
    assert_same_gradients(members, alone)


def test_dropout_draws_for_each_member():
    config = DecoderConfig(d_model=32, num_layers=1, dropout=0.5)
    members = [make_member(network=config) for _ in range(2)]
    stack = Stack(members)
    one, other = stack(of_losses(make_batch())).tolist()
    assert one != other
    for member in members:
        member.eval()
    one, other = stack(of_losses(make_batch())).tolist()
    assert one == other == pytest.approx(members[0].loss_sum(make_batch()).item())


def test_an_objective_of_ones_own_is_stacked_with_what_it_is_told_meanwhile():
    members = [make_focal(2.0), make_focal(2.0)]
    stack = Stack(members)
    stack(of_losses(make_batch()))
    members[0].gamma = 3.0  # the first stands for all
    losses = stack(of_losses(make_batch()))
    torch.testing.assert_close(losses[0], members[0].loss_sum(make_batch()))


def train(members, compute, step, *, steps, optimizers):
    """Return each step's losses (steps, members), with a schedule and clipping a member."""
    factors = [CosineConfig(warmup=0.1 * i).build(total=steps) for i in range(len(members))]
    rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
    losses = []
    for number in range(steps):
        batch = make_batch(seed=number, packed=number % 2 == 0)
        for optimizer, factor, own in zip(optimizers, factors, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, own, strict=True):
                group["lr"] = rate * factor(number)
        found = compute(batch)
        (found / 100).sum().backward()
        for i, member in enumerate(members):
            nn.utils.clip_grad_norm_(member.parameters(), 0.5 + i)
        step()
        for optimizer in optimizers:
            optimizer.zero_grad()
        losses.append(found.detach())
    return torch.stack(losses)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_fifty_steps_are_those_of_each_alone(kind, monkeypatch):
    # in bf16, Newton and Schulz round what differs in the last bit of float32 to another number
    monkeypatch.setattr(muon, "has_fast_bfloat16", lambda device: False)

    def optimizer_of(number, member):
        lr = 1e-3 * (number + 1)
        config = AdamWConfig(lr=lr) if kind == "adamw" else MuonConfig(lr=lr, weight_decay=0.1)
        return config.build(member.network)

    members = make_members()
    alone = copy.deepcopy(members)
    of_members = [optimizer_of(*each) for each in enumerate(members)]
    of_alone = [optimizer_of(*each) for each in enumerate(alone)]
    stack = Stack(members)
    stacked = train(
        members,
        lambda batch: stack(of_losses(batch)),
        lambda: step_together(of_members),
        steps=50,
        optimizers=of_members,
    )
    apart = train(
        alone,
        lambda batch: torch.stack([member.loss_sum(batch) for member in alone]),
        lambda: [optimizer.step() for optimizer in of_alone],
        steps=50,
        optimizers=of_alone,
    )
    assert (apart[-5:].mean(0) < apart[:5].mean(0)).all()
    torch.testing.assert_close(stacked, apart, rtol=1e-5, atol=0)


def test_without_one_member_the_others_go_on_and_its_weights_stay():
    members = make_members()
    alone = copy.deepcopy(members)
    stack = Stack(members)
    whole = members[0].network.norm.weight.untyped_storage().nbytes()
    stack.release()
    assert 3 * members[0].network.norm.weight.untyped_storage().nbytes() == whole
    rest = [members[0], members[2]]
    stack = Stack(rest)
    with torch.no_grad():
        members[0].network.norm.weight.mul_(2)
        alone[0].network.norm.weight.mul_(2)
    batch = make_batch()
    losses = stack(of_losses(batch)).tolist()
    assert losses == pytest.approx([alone[n].loss_sum(batch).item() for n in (0, 2)])
    for mine, theirs in zip(members[1].parameters(), alone[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_loaded_weights_are_what_is_computed_with():
    members = make_members()
    stack = Stack(members)
    loaded = make_member(seed=9)
    members[1].load_state_dict(loaded.state_dict())
    batch = make_batch()
    losses = stack(of_losses(batch))
    torch.testing.assert_close(losses[1], loaded.loss_sum(batch))
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    "change", [lambda stack, member: member.double(), lambda stack, _: stack.release()]
)
def test_a_stack_that_is_none_any_more_says_so(change):
    members = make_members()
    stack = Stack(members)
    change(stack, members[1])
    with pytest.raises(RuntimeError, match="lies elsewhere than where it was stacked"):
        stack(of_losses(make_batch()))


def test_compiling_what_has_no_network_says_so():
    with pytest.raises(ValueError, match="Linear has none of that name"):
        Stack([nn.Linear(2, 2)], compile=True)


def test_a_members_checkpoint_is_as_large_as_alone(tmp_path):
    member = make_member()
    io = AtomicCheckpointIO()
    io.save_checkpoint({"state_dict": member.state_dict()}, tmp_path / "alone.ckpt")
    others = make_members(8)
    stack = Stack([member, *others])
    io.save_checkpoint({"state_dict": member.state_dict()}, tmp_path / "stacked.ckpt")
    states = [each.state_dict() for each in (member, *others)]
    io.save_checkpoint({"states": states}, tmp_path / "all.ckpt")
    size = (tmp_path / "alone.ckpt").stat().st_size
    assert (tmp_path / "stacked.ckpt").stat().st_size < 1.05 * size
    assert (tmp_path / "all.ckpt").stat().st_size < 9.5 * size
    loaded = io.load_checkpoint(tmp_path / "stacked.ckpt")["state_dict"]
    stack.release()
    for name, weight in member.state_dict().items():
        assert torch.equal(loaded[name], weight)
