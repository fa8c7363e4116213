"""Several optimizers in one step as each would be by itself, also from a saved state."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from pile_lightning.optim import (
    AdamWConfig,
    JointOptimizer,
    MuonConfig,
    averages,
    joint_schedule,
    part_of_optimizer,
    part_of_schedule,
    update_average,
)

CONFIGS = {"adam": AdamWConfig(lr=0.1), "muon": MuonConfig(lr=0.2), "plain": None}
FACTORS = {name: (lambda step, n=n: 1 / (1 + n * step)) for n, name in enumerate(CONFIGS)}


def networks():
    torch.manual_seed(0)
    return {name: nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4)) for name in CONFIGS}


def made(of):
    """Return the optimizer of each network."""
    return {
        name: torch.optim.Adam(network.parameters(), lr=0.3)
        if CONFIGS[name] is None
        else CONFIGS[name].build(network)
        for name, network in of.items()
    }


def gradients(of, step):
    for network in of.values():
        for number, parameter in enumerate(network.parameters()):
            generator = torch.Generator().manual_seed(100 * step + number)
            parameter.grad = torch.randn(parameter.shape, generator=generator)


def weights(of):
    return {name: [p.detach().clone() for p in n.parameters()] for name, n in of.items()}


def joint(of):
    optimizer = JointOptimizer(made(of))
    factors = {n: [FACTORS[n]] * len(o.param_groups) for n, o in optimizer.parts.items()}
    return optimizer, joint_schedule(optimizer, factors)


def steps(of, optimizer, schedule, *, first, last):
    for step in range(first, last):
        gradients(of, step)
        optimizer.step()
        schedule.step()


@pytest.fixture
def alone():
    """Weights after four steps of each by itself."""
    of = networks()
    for name, optimizer in made(of).items():
        schedule = LambdaLR(optimizer, FACTORS[name])
        steps({name: of[name]}, optimizer, schedule, first=0, last=4)
    return weights(of)


def test_the_parts_step_as_they_would_alone(alone):
    of = networks()
    steps(of, *joint(of), first=0, last=4)
    torch.testing.assert_close(weights(of), alone, rtol=0, atol=0)


def test_a_saved_state_goes_on_as_the_whole(alone):
    of = networks()
    first = joint(of)
    steps(of, *first, first=0, last=2)
    saved = copy.deepcopy([each.state_dict() for each in first])
    again = joint(of)
    for each, state in zip(again, saved, strict=True):
        each.load_state_dict(state)
    steps(of, *again, first=2, last=4)
    torch.testing.assert_close(weights(of), alone, rtol=0, atol=0)


def test_the_state_of_a_part_goes_on_alone(alone):
    of = networks()
    optimizer, schedule = joint(of)
    steps(of, optimizer, schedule, first=0, last=2)
    whole = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
    for name, own in made(of).items():
        groups = optimizer.groups_of(name)
        own_schedule = LambdaLR(own, FACTORS[name])
        own.load_state_dict(part_of_optimizer(whole[0], groups))
        own_schedule.load_state_dict(part_of_schedule(whole[1], groups))
        steps({name: of[name]}, own, own_schedule, first=2, last=4)
    torch.testing.assert_close(weights(of), alone, rtol=0, atol=0)


def test_what_has_no_gradient_is_left_alone():
    of = networks()
    optimizer, schedule = joint(of)
    steps(of, optimizer, schedule, first=0, last=2)
    before = weights(of)
    optimizer.zero_grad()
    gradients({"muon": of["muon"]}, 2)
    optimizer.step()
    after = weights(of)
    for name in CONFIGS:
        moved = any(not torch.equal(a, b) for a, b in zip(before[name], after[name], strict=True))
        assert moved == (name == "muon")


def test_averages_are_kept_in_it_as_in_one_optimizer():
    of = networks()
    optimizer, schedule = joint(of)
    steps(of, optimizer, schedule, first=0, last=1)
    update_average(optimizer, decay=0.5)
    assert len(averages(optimizer)) == sum(len(list(n.parameters())) for n in of.values())
