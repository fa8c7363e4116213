"""The average is its formula, costs the weights nothing, and goes where optimizer state goes."""

import copy

import pytest
import torch
from torch import nn

from pile_lightning.optim import (
    AVERAGE,
    AdamWConfig,
    MuonConfig,
    averages,
    ema_decay,
    exchange,
    forget,
    update_average,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.up = nn.Linear(8, 24)
        self.down = nn.Linear(24, 11, bias=False)

    def forward(self, ids):
        return self.down(self.up(self.embedding(ids)).relu())


def steps(net, optimizer, count, *, decay=0.9, seed=0):
    """Train, and return the weights after each step."""
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for _ in range(count):
        ids = torch.randint(11, (4, 6), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(ids).flatten(0, 1), ids.flatten()).backward()
        optimizer.step()
        update_average(optimizer, decay=decay)
        seen.append([p.detach().clone() for p in net.parameters()])
    return seen


@pytest.mark.parametrize("config", [AdamWConfig(), MuonConfig()])
def test_the_average_is_its_formula(config):
    torch.manual_seed(0)
    net = Net()
    optimizer = config.build(net)
    first, *later = steps(net, optimizer, 6, decay=0.8)
    expected = first
    for weights in later:
        expected = [0.8 * a + 0.2 * w for a, w in zip(expected, weights, strict=True)]
    known = averages(optimizer)
    for parameter, value in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(known[parameter], value)


def test_the_average_of_weights_that_stand_still_is_those_weights():
    torch.manual_seed(0)
    net = Net()
    optimizer = AdamWConfig(lr=0.0).build(net)
    steps(net, optimizer, 5)
    known = averages(optimizer)
    assert all(torch.equal(known[p], p) for p in net.parameters())


def test_an_exchange_keeps_every_bit_of_both():
    torch.manual_seed(0)
    net = Net()
    optimizer = MuonConfig().build(net)
    steps(net, optimizer, 4)
    weights = copy.deepcopy(net.state_dict())
    held = {p: a.clone() for p, a in averages(optimizer).items()}
    places = [p.data_ptr() for p in net.parameters()]
    exchange(optimizer)
    assert all(torch.equal(p, held[p]) for p in net.parameters())
    assert [p.data_ptr() for p in net.parameters()] == places
    exchange(optimizer)
    assert all(torch.equal(weights[name], value) for name, value in net.state_dict().items())
    assert all(torch.equal(held[p], a) for p, a in averages(optimizer).items())


def test_it_goes_on_with_the_optimizers_state():
    torch.manual_seed(0)
    net = Net()
    optimizer = MuonConfig().build(net)
    steps(net, optimizer, 3)
    other = copy.deepcopy(net)
    again = MuonConfig().build(other)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(net, optimizer, 3, seed=1)
    steps(other, again, 3, seed=1)
    pairs = zip(averages(optimizer).values(), averages(again).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("make", [AdamWConfig().build, lambda n: torch.optim.SGD(n.parameters())])
def test_a_parameter_joins_when_it_is_first_stepped(make):
    torch.manual_seed(0)
    net = Net()
    optimizer = make(net)
    net.up.bias.requires_grad_(False)
    steps(net, optimizer, 2)
    assert net.up.bias not in averages(optimizer)
    net.up.bias.requires_grad_(True)
    steps(net, optimizer, 2)
    assert len(averages(optimizer)) == 4
    forget(optimizer)
    assert not any(AVERAGE in state for state in optimizer.state.values())


def test_the_decay_grows_to_what_was_asked_for():
    decays = [ema_decay(step, decay=0.99) for step in range(1, 2000)]
    assert decays == sorted(decays)
    assert decays[-1] == 0.99
    assert decays[0] < 0.2
