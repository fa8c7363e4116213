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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_relu2_keeps_one_tensor_and_its_gradient_is_twice_relu(dtype, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    kept = []
    x = torch.randn(4, 300, dtype=dtype, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        y = ACTIVATIONS["relu2"](x)
    assert [each.data_ptr() for each in kept] == [y.data_ptr()]
    (gradient,) = torch.autograd.grad(y.sum(), x)
    tolerance = {"rtol": 1e-12, "atol": 0} if dtype == torch.float64 else {"rtol": 8e-3, "atol": 0}
    torch.testing.assert_close(gradient, 2 * F.relu(x.detach()), **tolerance)
