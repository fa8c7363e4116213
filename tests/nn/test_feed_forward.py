"""The feed-forward layer is what its formula says, for every activation, plain and gated."""

import pytest
import torch
import torch.nn.functional as F

from pile_lightning.nn import ACTIVATIONS, FeedForwardConfig


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("gated", [False, True])
def test_it_equals_the_formula(perturb, activation, gated):
    config = FeedForwardConfig(d_ff=12, activation=activation, gated=gated, bias=True)
    layer, x = perturb(config.build(8)), torch.randn(3, 8)
    hidden = F.linear(x, layer.up.weight, layer.up.bias)
    act = ACTIVATIONS[activation]
    hidden = act(F.linear(x, layer.gate.weight, layer.gate.bias)) * hidden if gated else act(hidden)
    torch.testing.assert_close(layer(x), F.linear(hidden, layer.down.weight, layer.down.bias))


def test_relu2_is_the_square_of_relu():
    assert ACTIVATIONS["relu2"](torch.tensor([-2.0, 3.0])).tolist() == [0, 9]


def test_the_hidden_width_is_four_times_the_stream_unless_told():
    assert FeedForwardConfig().build(8).up.out_features == 32


def test_an_unknown_activation_lists_the_known_ones():
    with pytest.raises(ValueError, match="activation='swish' is unknown.*gelu_tanh, relu, relu2"):
        FeedForwardConfig(activation="swish")


def test_a_width_must_be_positive():
    with pytest.raises(ValueError, match="d_ff=0 is not positive; choose at least 1"):
        FeedForwardConfig(d_ff=0)
