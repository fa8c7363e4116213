"""The memory that a plan tells is what a real run allocates."""

import pytest

from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    MatchesConfig,
    PileConfig,
    ShortConvConfig,
    ShortcutsConfig,
    TablesConfig,
)
from pile_lightning.optim import AdamWConfig, MuonConfig
from pile_lightning.parallel import Layout
from pile_lightning.plan import rank_memory
from tests.plan.measuring import measure, parts_of, predict

NETWORKS = {
    "default": DecoderConfig(d_model=128, num_layers=3),
    "gated": DecoderConfig(
        d_model=128,
        num_layers=3,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2),
        feed_forward=FeedForwardConfig(activation="silu", gated=True, d_ff=320),
    ),
    "tables": DecoderConfig(d_model=128, num_layers=3, tables=TablesConfig(ngram_rows=(512,))),
    "shortcuts": DecoderConfig(
        d_model=128, num_layers=3, shortcuts=ShortcutsConfig(), logit_cap=15.0
    ),
    "convolved": DecoderConfig(d_model=128, num_layers=3, short_conv=ShortConvConfig(inputs=True)),
    "matches": DecoderConfig(d_model=128, num_layers=3, matches=MatchesConfig()),
    "untied": DecoderConfig(d_model=128, num_layers=3, tie_embeddings=False),
    "pile": PileConfig(d_model=128, num_layers=2),
}
CASES = [
    ("default", MuonConfig(), "32-true", "none", 1),
    ("default", AdamWConfig(), "bf16-mixed", "none", 1),
    ("gated", AdamWConfig(), "32-true", "full", 2),
    ("tables", AdamWConfig(), "32-true", "none", 2),
    ("gated", MuonConfig(), "bf16-mixed", "selective", 2),
    ("shortcuts", MuonConfig(), "bf16-mixed", "none", 1),
    ("convolved", MuonConfig(), "32-true", "none", 1),
    ("matches", MuonConfig(), "bf16-mixed", "none", 1),
    ("pile", AdamWConfig(), "bf16-true", "none", 1),
]
CASES[4:] = [pytest.param(*case, marks=pytest.mark.slow) for case in CASES[4:]]


@pytest.mark.parametrize(("name", "optimizer", "precision", "kind", "accumulate"), CASES)
def test_every_part_is_what_a_run_allocates(name, optimizer, precision, kind, accumulate):
    settings = {"precision": precision, "checkpointing": kind, "accumulate": accumulate}
    real = measure(NETWORKS[name], optimizer, **settings)
    profile = predict(NETWORKS[name], optimizer, **settings)
    told = parts_of(profile, rank_memory(profile, Layout()).peak)
    for part in real._fields:
        assert getattr(told, part) == pytest.approx(getattr(real, part), rel=0.03), part
