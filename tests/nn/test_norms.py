"""Norms equal torch's own in float32, and compute in float32 whatever they are given."""

import pytest
import torch
from torch import nn

from pile_lightning.nn import LayerNormConfig, RMSNormConfig


def test_rms_norm_equals_torch(perturb):
    ours, theirs = perturb(RMSNormConfig(eps=1e-5).build(16)), nn.RMSNorm(16, eps=1e-5)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 16)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_equals_torch(perturb, bias):
    ours, theirs = perturb(LayerNormConfig(bias=bias).build(16)), nn.LayerNorm(16, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 16)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("config", [RMSNormConfig(), LayerNormConfig()])
def test_bf16_input_is_normalised_in_float32_and_returned_in_bf16(config):
    norm, x = config.build(16), (100 * torch.randn(3, 16)).bfloat16()
    assert torch.equal(norm(x), norm(x.float()).bfloat16())


@pytest.mark.parametrize(("gain", "shape"), [("vector", (16,)), ("scalar", (1,)), ("none", None)])
def test_gain_has_the_shape_that_was_asked_for_and_starts_where_it_was_told(gain, shape):
    norm = RMSNormConfig(gain=gain, initial_gain=1.2).build(16)
    if shape is None:
        assert norm.weight is None
    else:
        assert norm.weight.shape == shape
        assert (norm.weight == 1.2).all()
    scale = 1.0 if shape is None else 1.2
    torch.testing.assert_close(norm(torch.ones(16)), scale * torch.ones(16))


def test_an_unknown_gain_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="gain='matrix' is unknown; choose one of 'none', 'scalar'"
    ):
        RMSNormConfig(gain="matrix")
