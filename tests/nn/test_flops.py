"""The formula for the cost of training counts what is computed."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    PileConfig,
    ShortcutsConfig,
)

BATCH, SEQ = 2, 16


@pytest.mark.parametrize(
    "config",
    [
        DecoderConfig(d_model=32, num_layers=3),
        DecoderConfig(d_model=32, num_layers=2, tie_embeddings=False),
        DecoderConfig(
            d_model=32,
            attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=12),
            feed_forward=FeedForwardConfig(activation="silu", gated=True, d_ff=40),
        ),
        DecoderConfig(d_model=32, shortcuts=ShortcutsConfig()),
        PileConfig(d_model=32, num_layers=2),
    ],
)
def test_formula_equals_counted(config):
    network = config.build(vocab_size=50, max_seq_len=SEQ)
    ids = torch.randint(50, (BATCH, SEQ))
    # plain math: of the fused kernels on CPU the counter sees nothing
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(ids).sum().backward()
    assert network.flops_per_token(SEQ) * BATCH * SEQ == counter.get_total_flops()
