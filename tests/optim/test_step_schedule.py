"""What the config says holds when a run resumes; the checkpoint gives the step and the state."""

import pytest
import torch
from torch import nn

from pile_lightning.optim import (
    AdamWConfig,
    CosineConfig,
    JointOptimizer,
    LinearConfig,
    MuonConfig,
    StepSchedule,
    joint_schedule,
)


def make(config, *, total=20, schedule=LinearConfig()):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    optimizer = config.build(network)
    return network, optimizer, StepSchedule(optimizer, schedule.build(total=total))


def train(made, steps):
    network, optimizer, schedule = made
    x = torch.arange(8.0).reshape(2, 4)
    for _ in range(steps):
        network(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def resume(old, new):
    """Load a run as Lightning does: the optimizer, then the schedule."""
    new[0].load_state_dict(old[0].state_dict())
    new[1].load_state_dict(old[1].state_dict())
    new[2].load_state_dict(old[2].state_dict())
    return new


@pytest.mark.parametrize("config", [AdamWConfig(), MuonConfig()], ids=lambda c: type(c).__name__)
def test_with_the_same_settings_a_resumed_run_is_the_same_bit_for_bit(config):
    whole, part = make(config), make(config)
    train(whole, 12)
    train(part, 5)
    resumed = resume(part, make(config))
    assert resumed[1].param_groups[0]["lr"] == part[1].param_groups[0]["lr"]
    train(resumed, 7)
    for one, two in zip(whole[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_changed_rate_and_decay_hold_and_state_that_an_optimizer_keeps_in_groups_stays():
    old = make(AdamWConfig(lr=0.01, weight_decay=0.1))
    train(old, 5)
    for group in old[1].param_groups:
        group["d"] = 3.5  # as optimizers do that find their own rate
    new = make(AdamWConfig(lr=0.002, weight_decay=0.3))
    built = [dict(group) for group in new[1].param_groups]
    resume(old, new)
    for group, as_built in zip(new[1].param_groups, built, strict=True):
        assert group["weight_decay"] == as_built["weight_decay"]
        assert group["lr"] == as_built["initial_lr"] * new[2].lr_lambdas[0](5)
        assert group["d"] == 3.5


def test_more_steps_stretch_the_schedule_without_a_step_at_rate_zero():
    old = make(AdamWConfig(lr=0.01), total=20)
    train(old, 20)
    new = resume(old, make(AdamWConfig(lr=0.01), total=40))
    assert new[1].param_groups[0]["lr"] == pytest.approx(0.01 * LinearConfig().build(total=40)(20))
    assert new[1].param_groups[0]["lr"] > 0.004
    other = resume(old, make(AdamWConfig(lr=0.01), total=40, schedule=CosineConfig()))
    assert other[2].get_last_lr()[0] == pytest.approx(0.01 * CosineConfig().build(total=40)(20))


def test_another_optimizer_is_refused():
    old = make(MuonConfig())
    new = make(AdamWConfig())
    with pytest.raises(ValueError, match=r"optimizer is Muon, and model.optimizer makes AdamW"):
        new[2].load_state_dict(old[2].state_dict())


def test_the_rates_of_parts_are_those_of_their_configs():
    def join(rates):
        parts = {
            name: torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=rate)
            for name, rate in rates.items()
        }
        joint = JointOptimizer(parts)
        return joint, joint_schedule(joint, {name: [lambda step: 0.5**step] for name in rates})

    joint, schedule = join({"a": 0.1, "b": 0.2})
    joint.step()
    schedule.step()
    resumed, again = join({"a": 0.1, "b": 0.8})
    resumed.load_state_dict(joint.state_dict())
    again.load_state_dict(schedule.state_dict())
    assert [group["lr"] for group in resumed.param_groups] == [0.05, 0.4]
    assert [part.param_groups[0]["lr"] for part in resumed.parts.values()] == [0.05, 0.4]


def test_a_part_with_another_optimizer_is_refused_also_where_the_kinds_are_the_same():
    def joint(*kinds):
        parts = {
            str(number): kind([torch.nn.Parameter(torch.ones(1))], lr=0.1)
            for number, kind in enumerate(kinds)
        }
        return StepSchedule(JointOptimizer(parts), lambda step: 1.0)

    adam, sgd = torch.optim.Adam, torch.optim.SGD
    state = joint(adam, sgd, adam).state_dict()
    joint(adam, sgd, adam).load_state_dict(state)
    with pytest.raises(ValueError, match="is Adam, SGD, Adam, and model.optimizer makes Adam, SGD"):
        joint(adam, sgd, sgd).load_state_dict(state)
