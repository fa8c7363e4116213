"""What is computed as one is what each member computes alone: losses, gradients, whole runs."""

import copy
import re
import time
from dataclasses import dataclass
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pile_lightning import CausalLM, DecoderConfig, NetworkConfig
from pile_lightning.checkpoint import AtomicCheckpointIO
from pile_lightning.modules.stacked import Stack, choose_stack, regions, why_not_stack
from pile_lightning.nn import (
    AttentionConfig,
    FeedForwardConfig,
    LayerNormConfig,
    LearnedConfig,
    PileConfig,
    TablesConfig,
)
from pile_lightning.optim import AdamWConfig, CosineConfig, MuonConfig, muon, step_together

VOCAB, SEQ = 50, 32


class Own(nn.Module):
    """A network of a user's own: a buffer, attention without heads, biases, a function."""

    def __init__(self, width):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, width)
        self.register_buffer("scale", torch.tensor(0.5))
        self.qkv = nn.Linear(width, 3 * width)
        self.norm = nn.LayerNorm(width)
        self.act = lambda x: F.gelu(x, approximate="tanh")
        self.head = nn.Sequential(nn.Linear(width, width), nn.Linear(width, VOCAB))

    def forward(self, input_ids, *, position_ids=None, document_ids=None):
        x = self.embedding(input_ids) * self.scale
        mask = torch.ones(SEQ, SEQ, dtype=torch.bool).tril()
        if document_ids is not None:
            mask = mask & (document_ids[:, :, None] == document_ids[:, None, :])
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        return self.head(self.act(x + F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))


@dataclass(frozen=True, kw_only=True)
class OwnConfig(NetworkConfig):
    width: int = 16

    def build(self, *, vocab_size, max_seq_len):
        return Own(self.width)


SMALL = DecoderConfig(d_model=32, num_layers=2)
NETWORKS = {
    "decoder": SMALL,
    "another decoder": DecoderConfig(
        d_model=32,
        num_layers=2,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2, bias=True),
        feed_forward=FeedForwardConfig(activation="silu", gated=True, bias=True),
        norm=LayerNormConfig(),
        positions=LearnedConfig(),
        tie_embeddings=False,
        tables=TablesConfig(ngram_rows=(64,)),
    ),
    "pile": PileConfig(d_model=32, num_heads=2, num_layers=1, dropout=0.0),
    "own": OwnConfig(),
}


def make_member(seed=0, network=SMALL, **settings):
    torch.manual_seed(seed)
    member = CausalLM(network, vocab_size=VOCAB, max_seq_len=SEQ, **settings)
    for parameter in member.built_network.parameters():
        # gains of 1 and projections of 0 hide faults
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return member


def make_members(count=3, **settings):
    return [make_member(seed, **settings) for seed in range(count)]


def make_batch(*, packed=True, seed=0, rows=4):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB, (rows, SEQ + 1), generator=generator)
    labels = ids[:, 1:].contiguous()
    labels[0, :5] = -100
    if not packed:
        none = {"position_ids": None, "document_ids": None}
        return {"input_ids": ids[:, :-1], "labels": labels, **none}
    documents = torch.zeros(rows, SEQ, dtype=torch.long)
    documents[1, 20:] = 1
    documents[:, 25:] += 1
    starts = F.pad(documents.diff(dim=1), (1, 0)) * torch.arange(SEQ)
    return {
        "input_ids": ids[:, :-1],
        "labels": labels,
        "position_ids": torch.arange(SEQ) - starts.cummax(dim=1).values,
        "document_ids": documents,
    }


def of_losses(batch):
    return lambda member: member.loss_sum(batch)


def gradients(member):
    return {n: None if p.grad is None else p.grad.clone() for n, p in member.named_parameters()}


def assert_same_gradients(members, alone):
    for member, other in zip(members, alone, strict=True):
        found, expected = gradients(member), gradients(other)
        # what is zero but for rounding, such as that of a key's bias, is as exact as the others
        scale = max(
            gradient.abs().max().item() for gradient in expected.values() if gradient is not None
        )
        for name, theirs in expected.items():
            if theirs is None:
                assert found[name] is None, name
            else:
                torch.testing.assert_close(found[name], theirs, rtol=1e-5, atol=1e-6 * scale)


# -- losses and gradients -------------------------------------------------------------------------


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


class Focal(CausalLM):
    def __init__(self, *, gamma=1.0, **settings):
        super().__init__(**settings)
        self.gamma = gamma

    def loss_sum(self, batch):
        nats = self.token_nll(batch)
        return (nats * (1 - (-nats).exp()) ** self.gamma).sum()


def make_focal(gamma):
    torch.manual_seed(int(gamma))
    member = Focal(gamma=gamma, network=SMALL, vocab_size=VOCAB, max_seq_len=SEQ)
    member.configure_model()
    return member


def test_an_objective_of_ones_own_is_stacked_with_what_it_is_told_meanwhile():
    members = [make_focal(2.0), make_focal(2.0)]
    stack = Stack(members)
    stack(of_losses(make_batch()))
    members[0].gamma = 3.0  # the first stands for all
    losses = stack(of_losses(make_batch()))
    torch.testing.assert_close(losses[0], members[0].loss_sum(make_batch()))


# -- training -------------------------------------------------------------------------------------


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


# -- what cannot be stacked -----------------------------------------------------------------------


def with_buffer(value):
    member = make_member(network=OwnConfig())
    member.network.scale.fill_(value)
    return member


def with_dropout(share, *, config=None):
    member = make_member(network=config or PileConfig(d_model=32, num_layers=1, num_heads=2))
    member.network.dropout.p = share
    return member


def sharing():
    one, other = make_members(2)
    other.network.embedding = one.network.embedding
    return [one, other]


def frozen():
    one, other = make_members(2)
    other.network.norm.requires_grad_(False)
    return [one, other]


REFUSED = {
    "shapes": (
        lambda: [make_member(), make_member(network=DecoderConfig(d_model=64, num_layers=2))],
        r"differ in network\.init_args\.d_model: 32 and 64",
    ),
    "classes": (
        lambda: [make_member(), make_focal(1.0)],
        "differ in class: 'CausalLM' and 'Focal'",
    ),
    "settings": (lambda: [make_focal(1.0), make_focal(2.0)], "differ in gamma: 1.0 and 2.0"),
    "buffers": (lambda: [with_buffer(0.5), with_buffer(0.6)], "buffer network.scale"),
    "dropouts": (
        lambda: [with_dropout(0.1), with_dropout(0.2)],
        "differ in network.dropout.p: 0.1 and 0.2",
    ),
    "modes": (lambda: [make_member(), make_member().eval()], "differ in .*training"),
    "frozen": (frozen, "differ in network.norm.weight"),
    "shared": (sharing, "members 0 and 1 share network.embedding.weight"),
    "recomputed": (
        lambda: [make_member(activation_checkpointing="full")] * 2,
        "activation_checkpointing=full",
    ),
    "not built": (
        lambda: [CausalLM(SMALL, vocab_size=VOCAB, max_seq_len=SEQ)],
        "not built; call its configure_model",
    ),
    "none": (list, "no members"),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_differs_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        Stack(make())


def test_how_members_learn_may_differ():
    members = [
        make_member(0, optimizer=AdamWConfig(lr=0.1), schedule=CosineConfig(warmup=0.3)),
        make_member(1, optimizer=MuonConfig()),
    ]
    assert why_not_stack(members) is None


# -- the choice -----------------------------------------------------------------------------------


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


# -- compiled -------------------------------------------------------------------------------------


@pytest.fixture
def traced(monkeypatch):
    """A compiler that traces as the real one does, and runs what it traced as it is written."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    regions.compiled.cache_clear()
    yield
    regions.compiled.cache_clear()
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_all_layers_and_members_share_a_graph_for_each_kind_of_batch(traced):
    members = make_members(network=NETWORKS["decoder"])
    alone = copy.deepcopy(members)
    stack = Stack(members, compile=True)
    for packed in (False, True):
        stack(of_losses(make_batch(packed=packed))).sum().backward()
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    with torch.compiler.set_stance("fail_on_recompile"):
        for number, packed in enumerate((True, False, True)):
            for member in members:
                member.zero_grad()
            batch = make_batch(packed=packed, seed=number)
            losses = stack(of_losses(batch))
            losses.sum().backward()
    for member, loss in zip(alone, losses.detach(), strict=True):
        own = member.loss_sum(batch)
        own.backward()
        torch.testing.assert_close(loss, own.detach(), rtol=1e-6, atol=0)
    assert_same_gradients(members, alone)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("name", ["another decoder", "pile", "own"])
def test_compiled_any_network_computes_what_it_does_alone(name, traced):
    members = make_members(network=NETWORKS[name])
    alone = copy.deepcopy(members)
    batch = make_batch()
    Stack(members, compile=True)(of_losses(batch)).sum().backward()
    for member in alone:
        member.loss_sum(batch).backward()
    assert_same_gradients(members, alone)
