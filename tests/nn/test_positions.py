"""Each kind of positions tells the network where a token stands, in the way that it promises."""

import pytest
import torch

from pile_lightning.nn import LearnedConfig, NoPositionsConfig, RopeConfig, SinusoidalConfig
from pile_lightning.nn.positions import rotate, sinusoids

SIZE = {"d_model": 16, "head_dim": 8, "max_seq_len": 32}


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rotary_scores_depend_on_distance_only(fraction):
    rope = RopeConfig(fraction=fraction).build(**SIZE)
    q, k = torch.randn(8).expand(1, 1, 20, 8), torch.randn(8).expand(1, 1, 20, 8)
    rotation = rope.rotation(torch.arange(20)[None])
    scores = rotate(q, rotation) @ rotate(k, rotation).transpose(-1, -2)
    for distance in range(5):
        diagonal = scores[0, 0].diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert not torch.allclose(scores[0, 0, 5, 5], scores[0, 0, 5, 2])


def test_partial_rotary_leaves_the_rest_of_each_head_as_it_is():
    rotation = RopeConfig(fraction=0.5).build(**SIZE).rotation(torch.arange(1, 6)[None])
    x = torch.randn(2, 3, 5, 8)
    turned = rotate(x, rotation)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert not torch.isclose(turned[..., :4], x[..., :4]).all(-1).any()
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_sinusoids_are_those_of_the_paper():
    table = sinusoids(torch.tensor([[7]]), 6)[0, 0]
    for pair in range(3):
        angle = torch.tensor(7 / 10000 ** (2 * pair / 6))
        torch.testing.assert_close(table[2 * pair], angle.sin())
        torch.testing.assert_close(table[2 * pair + 1], angle.cos())


def test_angles_stay_in_float32_in_a_bf16_network():
    cosines, _ = RopeConfig().build(**SIZE).bfloat16().rotation(torch.tensor([[256, 257]]))
    assert cosines.dtype == torch.float32
    assert not torch.equal(cosines[0, 0, 0], cosines[0, 0, 1])


def test_what_is_turned_keeps_its_type():
    rotation = RopeConfig().build(**SIZE).rotation(torch.arange(5)[None])
    x = torch.randn(2, 3, 5, 8).bfloat16()
    assert torch.equal(rotate(x, rotation), rotate(x.float(), rotation).bfloat16())
    assert rotate(x, rotation).dtype == torch.bfloat16


@pytest.mark.parametrize("config", [SinusoidalConfig(), LearnedConfig()])
def test_added_positions_differ_by_position_and_are_the_same_for_the_same_position(config, perturb):
    positions = perturb(config.build(**SIZE))
    out = positions.embed(torch.zeros(1, 3, 16), torch.tensor([[0, 1, 0]]))
    assert torch.equal(out[0, 0], out[0, 2])
    assert not torch.allclose(out[0, 0], out[0, 1])


def test_no_positions_change_nothing():
    positions, x = NoPositionsConfig().build(**SIZE), torch.randn(1, 3, 16)
    assert positions.embed(x, torch.arange(3)[None]) is x
    assert positions.rotation(torch.arange(3)[None]) is None


@pytest.mark.parametrize("fraction", [0.4, 0.0, 1.5])
def test_rotary_features_must_pair_up(fraction):
    with pytest.raises(ValueError, match=f"fraction={fraction} of head_dim=8.*even number.*change"):
        RopeConfig(fraction=fraction).build(**SIZE)


def test_sinusoidal_positions_need_an_even_width():
    with pytest.raises(ValueError, match="d_model=15 is odd.*choose an even d_model"):
        SinusoidalConfig().build(**{**SIZE, "d_model": 15})
