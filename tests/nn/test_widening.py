"""A decoder at another width keeps what is not its width, and is itself at its own."""

from dataclasses import dataclass, replace

import pytest

from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    InitConfig,
    PileConfig,
    SizedDecoderConfig,
    resized,
    widened,
)

NARROW = DecoderConfig(
    d_model=48,
    num_layers=3,
    attention=AttentionConfig(num_heads=4, num_kv_heads=2, bias=True),
    feed_forward=FeedForwardConfig(d_ff=100, activation="silu", gated=True),
    logit_cap=15.0,
)


@pytest.mark.parametrize("config", [NARROW, DecoderConfig(d_model=32), SizedDecoderConfig()])
def test_at_its_own_width_it_is_the_same(config):
    assert widened(config, d_model=config.d_model) == config
    if isinstance(config, SizedDecoderConfig):
        assert resized(config, size=config.size) == config


def test_heads_and_hidden_features_grow_and_all_else_is_kept():
    wide = widened(NARROW, d_model=192)
    assert wide.attention == replace(NARROW.attention, num_heads=16, num_kv_heads=8)
    assert wide.attention.resolve_head_dim(192) == NARROW.attention.resolve_head_dim(48)
    assert wide.feed_forward == replace(NARROW.feed_forward, d_ff=400)
    assert (
        replace(
            wide,
            d_model=48,
            attention=NARROW.attention,
            feed_forward=NARROW.feed_forward,
            init=NARROW.init,
        )
        == NARROW
    )
    assert widened(NARROW, d_model=48, num_layers=9) == replace(NARROW, num_layers=9)


def test_in_two_steps_it_comes_to_the_same():
    assert widened(widened(NARROW, d_model=96), d_model=384) == widened(NARROW, d_model=384)


def test_the_embedding_starts_in_proportion_to_the_inverse_of_the_width():
    for init in (InitConfig(), InitConfig.gpt2(), InitConfig.any_width()):
        narrow = replace(NARROW, init=init)
        wide = widened(narrow, d_model=192)
        before = narrow.init.embedding.resolve(48, num_layers=3)
        assert wide.init.embedding.resolve(192, num_layers=3) == pytest.approx(before / 4)
        assert replace(wide.init, embedding=init.embedding) == init
    # not normalised, what is looked up is the stream itself
    plain = replace(NARROW, embedding_norm=None)
    assert widened(plain, d_model=192).init == plain.init


def test_a_size_is_reached_from_any_decoder():
    large = resized(replace(NARROW, feed_forward=FeedForwardConfig()), size="d4")
    assert (large.d_model, large.num_layers, large.attention.num_heads) == (256, 4, 2)
    assert large.attention.num_kv_heads == 1
    assert large.attention.bias
    assert large.logit_cap == 15.0
    back = widened(SizedDecoderConfig(size="d4", dropout=0.1), d_model=512)
    assert type(back) is DecoderConfig
    assert (back.d_model, back.num_layers, back.attention.num_heads) == (512, 4, 4)
    assert back.dropout == 0.1


@dataclass(frozen=True, kw_only=True)
class Own(DecoderConfig):
    extra: int = 3


def test_a_class_of_ones_own_is_kept_or_refused():
    assert widened(Own(d_model=32, extra=4), d_model=64).extra == 4
    with pytest.raises(TypeError, match="the sweep's network is a Own; give d_model"):
        resized(Own(d_model=32), size="d4")
    with pytest.raises(TypeError, match="PileConfig is not carried .* DecoderConfig alone"):
        widened(PileConfig(), d_model=512)


def test_sizes_that_cannot_be_are_refused_with_what_can():
    with pytest.raises(ValueError, match="width 32 is narrower than the 48.*give 48 or more"):
        widened(NARROW, d_model=32)
    with pytest.raises(ValueError, match=r"d_model=50 is not in whole heads.*multiple of 12"):
        widened(NARROW, d_model=50)
    with pytest.raises(ValueError, match="5 heads do not share keys and values by 2"):
        widened(NARROW, d_model=60)
    with pytest.raises(ValueError, match="size='large' is no size"):
        resized(NARROW, size="large")
