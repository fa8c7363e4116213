"""Small decoders, and what they read."""

import torch

from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    LearnedConfig,
    MatchesConfig,
    NoPositionsConfig,
    RopeConfig,
    ShortConvConfig,
    ShortcutsConfig,
    SinusoidalConfig,
    TablesConfig,
)

POSITIONS = [
    RopeConfig(),
    RopeConfig(fraction=0.5),
    SinusoidalConfig(),
    LearnedConfig(),
    NoPositionsConfig(),
]

EVERYWHERE = ShortConvConfig(size=3, queries=True, values=True, inputs=True)

KINDS = [
    *({"positions": positions} for positions in POSITIONS),
    {"tables": TablesConfig(ngram_rows=(64, 32), value_layers=1)},
    {"shortcuts": ShortcutsConfig(), "logit_cap": 3.0},
    {"short_conv": ShortConvConfig()},
    {"short_conv": EVERYWHERE},
    {"matches": MatchesConfig(lengths=(1, 2))},
    {"shortcuts": ShortcutsConfig(), "tables": TablesConfig(ngram_rows=(64,), value_layers=1)},
]

GROUPED = AttentionConfig(num_heads=4, num_kv_heads=2)


def build(perturb, *, vocab_size=50, max_seq_len=16, **fields):
    config = DecoderConfig(**{"d_model": 32, "num_layers": 2, "attention": GROUPED} | fields)
    return perturb(config.build(vocab_size=vocab_size, max_seq_len=max_seq_len))


def tokens(batch=2, seq=12):
    return torch.randint(1, 50, (batch, seq), generator=torch.Generator().manual_seed(5))


def packed(*lengths, batch=2):
    position_ids = torch.cat([torch.arange(length) for length in lengths])
    document_ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return {
        "position_ids": position_ids.expand(batch, -1),
        "document_ids": document_ids.expand(batch, -1),
    }
