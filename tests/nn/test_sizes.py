import pytest

from pile_lightning.config import from_plain, to_plain
from pile_lightning.nn import AttentionConfig, DecoderConfig, InitConfig, SizedDecoderConfig


@pytest.mark.parametrize("depth", range(4, 25))
def test_width_and_heads_follow_from_the_word(depth):
    config = SizedDecoderConfig(size=f"d{depth}")
    assert config.num_layers == depth
    assert 64 * depth <= config.d_model < 64 * depth + 128
    assert config.attention.num_heads * 128 == config.d_model
    assert config.attention.resolve_head_dim(config.d_model) == 128


def test_d4_is_the_default_decoder():
    sized, plain = SizedDecoderConfig(size="d4"), DecoderConfig()
    assert (sized.d_model, sized.num_layers) == (plain.d_model, plain.num_layers)
    assert sized.attention == plain.attention
    rules = (InitConfig.any_width().embedding, InitConfig().embedding)
    stds = [rule.resolve(plain.d_model, num_layers=4) for rule in rules]
    assert stds[0] == stds[1]


def test_it_goes_through_a_checkpoint_and_keeps_what_else_was_set():
    config = SizedDecoderConfig(size="d8", attention=AttentionConfig(num_kv_heads=2), dropout=0.1)
    assert from_plain(to_plain(config)) == config
    assert config.attention.num_kv_heads == 2
    assert "d_model" not in to_plain(config)["init_args"]


@pytest.mark.parametrize("size", ["8", "d0", "large", "d", "d-4", "D8"])
def test_a_word_that_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match=rf"size='{size}' is no size; choose d and a number"):
        SizedDecoderConfig(size=size)


def test_heads_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"size='d8' has 4 heads and attention.num_heads=8; leave"):
        SizedDecoderConfig(size="d8", attention=AttentionConfig(num_heads=8))
    with pytest.raises(TypeError, match="d_model"):
        SizedDecoderConfig(size="d8", d_model=64)
