"""Gradients are clipped as torch clips them, and the norm before is told."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pile_lightning.parallel import build_for, clip, global_norm


def gradients():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=generator) for size in ((3, 4), (5,), (2, 2))]


@pytest.mark.parametrize("largest", [0.5, 100.0])
def test_by_norm_it_is_torchs_own(largest):
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients()]
    for parameter, gradient in zip(parameters, gradients(), strict=True):
        parameter.grad = gradient
    norm = nn.utils.clip_grad_norm_(parameters, largest)
    ours = gradients()
    found = clip(ours, largest, algorithm="norm", strategy=object())
    torch.testing.assert_close(found, norm)
    for gradient, parameter in zip(ours, parameters, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_by_value_no_number_is_larger():
    ours = gradients()
    assert clip(ours, 0.1, algorithm="value", strategy=object()) is None
    for gradient, before in zip(ours, gradients(), strict=True):
        assert torch.equal(gradient, before.clamp(-0.1, 0.1))


def test_no_gradient_has_no_norm():
    assert global_norm([]) == 0


def test_a_strategy_that_leaves_sharding_to_the_module_is_refused():
    trainer = SimpleNamespace(strategy=object())
    module = SimpleNamespace(device_mesh=object(), trainer=trainer)
    with pytest.raises(TypeError, match="object leaves the sharding of a network to its module"):
        build_for(module, lambda: nn.Linear(2, 2))
