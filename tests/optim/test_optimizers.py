import copy

import pytest
import torch
from torch import nn

from pile_lightning.nn import AttentionConfig, DecoderConfig
from pile_lightning.optim import (
    AdamWConfig,
    Muon,
    MuonConfig,
    orthogonalise,
    parameter_roles,
    step_together,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.up = nn.Linear(8, 24)
        self.down = nn.Linear(24, 8, bias=False)
        self.twin = nn.Linear(24, 8, bias=False)
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, ids):
        x = self.embedding(ids)
        hidden = self.up(x).relu()
        return self.head(x + self.down(hidden) + self.twin(hidden))


def train(net, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        ids = torch.randint(11, (4, 6), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(ids).flatten(0, 1), ids.flatten()).backward()
        optimizer.step()


def test_roles_hold_every_parameter_once():
    net = Net()
    roles = parameter_roles(net)
    ids = [id(p) for role in roles for p in role]
    assert sorted(ids) == sorted(id(p) for p in net.parameters())
    assert {id(p) for p in roles.tables} == {id(net.embedding.weight), id(net.head.weight)}
    assert [id(p) for p in roles.vectors] == [id(net.up.bias)]


def test_lookups_are_apart_and_lend_their_size_to_no_matrix():
    net = nn.ModuleDict({"table": nn.Embedding(24, 8), "up": nn.Linear(8, 24, bias=False)})
    net["table"].role = "lookup"
    roles = parameter_roles(net)
    assert [len(role) for role in roles] == [1, 0, 1, 0]
    lrs = {g["lr"] for g in MuonConfig(lookup_lr=0.7).build(net).param_groups}
    assert lrs == {0.03, 0.7}


def test_a_projection_as_wide_as_the_vocabulary_is_no_table():
    config = DecoderConfig(d_model=16, num_layers=1, attention=AttentionConfig(num_heads=1))
    for vocab_size in (16, 64):  # that of q, k, v, out and down; that of up
        network = config.build(vocab_size=vocab_size, max_seq_len=8)
        roles = parameter_roles(network)
        assert len(roles.matrices) == 6
        assert [id(p) for p in roles.tables] == [id(network.embedding.weight)]


class Gpt(nn.Module):
    """An ordinary GPT of torch's own layers."""

    def __init__(self, context, *, vocab=96, width=32):
        super().__init__()
        self.token = nn.Embedding(vocab, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 4 * width) for _ in range(2)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)


# the width is 32, that of q, k and v together 96, that of the feed-forward layer 128
@pytest.mark.parametrize("context", [31, 32, 96, 128])
def test_what_a_parameter_is_does_not_depend_on_sizes_that_are_equal_by_chance(context):
    net = Gpt(context)
    roles = parameter_roles(net)
    assert len(roles.matrices) == 8  # in_proj, out_proj, linear1 and linear2 of two blocks
    tables = {id(net.token.weight), id(net.position.weight), id(net.head.weight)}
    assert {id(p) for p in roles.tables} == tables


def test_roles_come_from_the_type_of_the_module_or_are_declared():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.ones(6, 4))
            self.scale = nn.Parameter(torch.ones(1, 1, 4))
            self.mix = nn.Parameter(torch.ones(4, 4))
            self.conv = nn.Conv1d(4, 4, 3)
            self.norm = nn.LayerNorm((4, 4))
            self.role = {"table": "table"}

    net = Odd()
    roles = parameter_roles(net)
    assert [id(p) for p in roles.tables] == [id(net.table)]
    assert [id(p) for p in roles.matrices] == [id(net.mix), id(net.conv.weight)]
    assert len(roles.vectors) == 4
    net.role = {"table": "tables"}
    with pytest.raises(
        ValueError, match=r"role='tables' of Odd.table is no role.*table, embedding"
    ):
        parameter_roles(net)
    net.role, net.conv.role = {}, "tabel"
    with pytest.raises(ValueError, match=r"role='tabel' of conv.weight is no role"):
        parameter_roles(net)


def test_a_head_that_is_tied_is_a_table_and_one_that_a_model_names_too():
    net = Gpt(32)
    net.head.weight = net.token.weight
    assert len(parameter_roles(net).tables) == 2

    class Named(Gpt):
        def get_output_embeddings(self):
            return self.blocks[0].linear2

    roles = parameter_roles(Named(32))
    assert len(roles.matrices) == 8  # linear2 is one no more, and what is called head is


def test_frozen_parameters_are_left_out():
    net = Net()
    net.up.weight.requires_grad_(False)
    assert id(net.up.weight) not in {id(p) for role in parameter_roles(net) for p in role}


def test_adamw_decays_matrices_and_never_vectors():
    net = Net()
    optimizer = AdamWConfig(lr=0.1, weight_decay=0.5).build(net)
    before = copy.deepcopy(net)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(net.down.weight, before.down.weight * 0.95)
    torch.testing.assert_close(net.up.bias, before.up.bias)


@pytest.mark.parametrize("shape", [(3, 16, 64), (2, 64, 16), (1, 32, 32)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_orthogonalise_keeps_the_singular_vectors():
    torch.manual_seed(0)
    matrix = torch.randn(1, 12, 20)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.mT @ orthogonalise(matrix) @ vh.mT
    off_diagonal = inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 1e-4


@pytest.mark.parametrize("rank", [2, 24])
def test_wide_matrices_are_those_of_the_plain_iteration(rank):
    torch.manual_seed(0)
    wide = torch.randn(3, 24, rank) @ torch.randn(3, rank, 96)
    x = wide.double() / wide.double().norm(dim=(-2, -1), keepdim=True)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    for matrices, plain in ((wide, x), (wide.mT, x.mT)):
        assert (orthogonalise(matrices) - plain).norm() < 5e-5 * plain.norm()
        # rounding grows with each step that is taken by one Gram matrix
        assert torch.linalg.svdvals(orthogonalise(matrices, steps=9)).max() < 1.3


def test_a_batch_of_matrices_steps_like_each_alone():
    torch.manual_seed(0)
    together, alone = Net(), Net()
    alone.load_state_dict(together.state_dict())
    one = MuonConfig().build(together)
    groups = [
        {"params": [p], "algorithm": g["algorithm"], "lr": g["lr"]}
        for g in MuonConfig().build(alone).param_groups
        for p in g["params"]
    ]
    many = Muon(groups)
    train(together, one, 5)
    train(alone, many, 5)
    for a, b in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_optimizers_of_several_networks_step_together_as_each_alone():
    configs = [
        MuonConfig(lr=0.02, weight_decay=0.1),
        MuonConfig(lr=0.05, momentum=0.8),
        MuonConfig(lr=0.05, num_iterations=3),
        AdamWConfig(lr=0.01),
    ]
    nets = []
    for seed in range(len(configs)):
        torch.manual_seed(seed)
        nets.append(Net())
    alone = copy.deepcopy(nets)
    of_nets, of_alone = (
        [config.build(net) for config, net in zip(configs, each, strict=True)]
        for each in (nets, alone)
    )
    ids = torch.randint(11, (4, 6))
    for step in range(3):
        for net in (*nets, *alone):
            net.zero_grad()
            nn.functional.cross_entropy(net(ids).flatten(0, 1), ids.flatten()).backward()
        if step == 1:  # one stands still
            nets[1].zero_grad()
            alone[1].zero_grad()
        step_together(of_nets)
        for optimizer in of_alone:
            optimizer.step()
    for net, other in zip(nets, alone, strict=True):
        for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_muons_matrix_step_has_the_stated_size():
    weight = nn.Parameter(torch.zeros(64, 16))
    optimizer = Muon([{"params": [weight], "algorithm": "muon", "lr": 0.1}])
    torch.manual_seed(0)
    weight.grad = torch.randn(64, 16)
    optimizer.step()
    values = torch.linalg.svdvals(weight.detach()) / (0.1 * (64 / 16) ** 0.5)
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muons_tables_step_like_torchs_adamw():
    torch.manual_seed(0)
    ours, theirs = nn.Embedding(5, 4), nn.Embedding(5, 4)
    theirs.load_state_dict(ours.state_dict())
    one = MuonConfig(table_lr=0.01, eps=1e-8).build(ours)
    two = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(4):
        for net, optimizer in ((ours, one), (theirs, two)):
            optimizer.zero_grad()
            (net.weight**3).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


@pytest.mark.parametrize("config", [AdamWConfig(), MuonConfig(weight_decay=0.1)])
def test_resumed_optimizer_goes_on_bit_for_bit(config, tmp_path):
    torch.manual_seed(0)
    whole = Net()
    optimizer = config.build(whole)
    train(whole, optimizer, 4)
    torch.save({"net": whole.state_dict(), "opt": optimizer.state_dict()}, tmp_path / "c.pt")
    train(whole, optimizer, 3, seed=1)

    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    resumed = Net()
    resumed.load_state_dict(saved["net"])
    again = config.build(resumed)
    again.load_state_dict(saved["opt"])
    train(resumed, again, 3, seed=1)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_parameters_without_a_gradient_are_passed_over():
    net = Net()
    optimizer = MuonConfig().build(net)
    before = copy.deepcopy(net.state_dict())
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_group_without_an_algorithm_is_refused():
    with pytest.raises(ValueError, match=r"algorithm='sgd' of a parameter group is not known"):
        Muon([{"params": [nn.Parameter(torch.zeros(2, 2))], "algorithm": "sgd"}])
