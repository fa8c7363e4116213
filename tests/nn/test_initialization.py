"""Weights start as the table says, and from one seed the same, however the network was made."""

import math

import pytest
import torch

from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    InitConfig,
    InitRule,
    LayerNormConfig,
    LearnedConfig,
    PileConfig,
    initialize,
)


def test_the_recipe_is_narrow_uniform_with_silent_blocks():
    network = DecoderConfig(d_model=256, num_layers=1).build(vocab_size=512, max_seq_len=8)
    block = network.blocks[0]
    for weight in (
        network.embedding.weight,
        block.attention.q.weight,
        block.attention.v.weight,
        block.feed_forward.up.weight,
    ):
        assert weight.std().item() == pytest.approx(0.5 / 16, rel=0.02)
        bound = math.sqrt(3) * 0.5 / 16
        assert 0.99 * bound < weight.abs().max().item() <= bound
    assert (block.attention.out.weight == 0).all()
    assert (block.feed_forward.down.weight == 0).all()
    x = torch.randn(1, 4, 256)
    assert torch.equal(block(x), x)


def test_gpt2_scales_what_is_added_to_the_stream_by_depth():
    config = DecoderConfig(
        d_model=256,
        num_layers=8,
        init=InitConfig.gpt2(),
        positions=LearnedConfig(),
        norm=LayerNormConfig(),
        attention=AttentionConfig(num_heads=4, bias=True),
    )
    network = config.build(vocab_size=512, max_seq_len=256)
    block = network.blocks[3]
    for weight in (
        network.embedding.weight,
        network.positions.table.weight,
        block.attention.q.weight,
        block.attention.v.weight,
    ):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    for weight in (block.attention.out.weight, block.feed_forward.down.weight):
        assert weight.std().item() == pytest.approx(0.02 / 4, rel=0.02)
    assert (block.attention.q.bias == 0).all()


@pytest.mark.parametrize(
    "config",
    [
        DecoderConfig(d_model=32, num_layers=2),
        DecoderConfig(
            d_model=32,
            num_layers=2,
            tie_embeddings=False,
            positions=LearnedConfig(),
            norm=LayerNormConfig(),
            attention=AttentionConfig(num_heads=2, bias=True),
            init=InitConfig.gpt2(),
        ),
        PileConfig(d_model=32, padding_idx=0),
    ],
)
def test_meta_then_materialised_equals_direct(config):
    torch.manual_seed(7)
    direct = config.build(vocab_size=50, max_seq_len=16)
    torch.manual_seed(7)
    with torch.device("meta"):
        network = config.build(vocab_size=50, max_seq_len=16)
    assert all(parameter.is_meta for parameter in network.parameters())
    network.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    network.reset_parameters()
    expected = direct.state_dict()
    assert network.state_dict().keys() == expected.keys()
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_an_embedding_times_the_root_of_its_width_has_unit_variance_in_pile():
    network = PileConfig(d_model=64, padding_idx=0).build(vocab_size=500, max_seq_len=8)
    assert (network.embedding.weight[0] == 0).all()
    assert (8 * network.embedding.weight[1:]).std().item() == pytest.approx(1, rel=0.02)


def test_rules_scale_by_what_they_name():
    def std(scaled_by):
        rule = InitRule(distribution="normal", std=1.2, scaled_by=scaled_by)
        return rule.resolve(16, num_layers=2)

    scaled = [std(by) for by in ("none", "fan_in", "depth", "fan_in_and_depth")]
    assert scaled == pytest.approx([1.2, 0.3, 0.6, 0.15])


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="distribution='xavier' is unknown.*'normal', 'uniform'"):
        InitRule(distribution="xavier")
    with pytest.raises(ValueError, match="scaled_by='height' is unknown.*'depth', 'fan_in'"):
        InitRule(distribution="normal", scaled_by="height")


def test_a_part_of_ones_own_may_fill_itself_in_place():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.empty(3))

        def reset_parameters(self):
            self.gain.fill_(2.0)

    network = torch.nn.Sequential(Own())
    initialize(network, InitConfig(), num_layers=1)
    assert network[0].gain.tolist() == [2.0, 2.0, 2.0]
    assert network[0].gain.grad_fn is None
