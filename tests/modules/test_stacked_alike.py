"""Members that differ in more than their numbers are not stacked, and it is said in what."""

import pytest

from pile_lightning import CausalLM, DecoderConfig
from pile_lightning.modules.stacked import Stack, why_not_stack
from pile_lightning.nn import (
    PileConfig,
)
from pile_lightning.optim import AdamWConfig, CosineConfig, MuonConfig
from tests.modules.members import (
    SEQ,
    SMALL,
    VOCAB,
    OwnConfig,
    make_focal,
    make_member,
    make_members,
)


def with_buffer(value):
    member = make_member(network=OwnConfig())
    member.network.scale.fill_(value)
    return member


def with_dropout(share, *, config=None):
    member = make_member(network=config or PileConfig(d_model=32, num_layers=1, num_heads=2))
    member.network.dropout.p = share
    return member


def sharing():
    one, other = make_members(2)
    other.network.embedding = one.network.embedding
    return [one, other]


def frozen():
    one, other = make_members(2)
    other.network.norm.requires_grad_(False)
    return [one, other]


REFUSED = {
    "shapes": (
        lambda: [make_member(), make_member(network=DecoderConfig(d_model=64, num_layers=2))],
        r"differ in network\.init_args\.d_model: 32 and 64",
    ),
    "classes": (
        lambda: [make_member(), make_focal(1.0)],
        "differ in class: 'CausalLM' and 'Focal'",
    ),
    "settings": (lambda: [make_focal(1.0), make_focal(2.0)], "differ in gamma: 1.0 and 2.0"),
    "buffers": (lambda: [with_buffer(0.5), with_buffer(0.6)], "buffer network.scale"),
    "dropouts": (
        lambda: [with_dropout(0.1), with_dropout(0.2)],
        "differ in network.dropout.p: 0.1 and 0.2",
    ),
    "modes": (lambda: [make_member(), make_member().eval()], "differ in .*training"),
    "frozen": (frozen, "differ in network.norm.weight"),
    "shared": (sharing, "members 0 and 1 share network.embedding.weight"),
    "recomputed": (
        lambda: [make_member(activation_checkpointing="full")] * 2,
        "activation_checkpointing=full",
    ),
    "not built": (
        lambda: [CausalLM(SMALL, vocab_size=VOCAB, max_seq_len=SEQ)],
        "not built; call its configure_model",
    ),
    "none": (list, "no members"),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_differs_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        Stack(make())


def test_how_members_learn_may_differ():
    members = [
        make_member(0, optimizer=AdamWConfig(lr=0.1), schedule=CosineConfig(warmup=0.3)),
        make_member(1, optimizer=MuonConfig()),
    ]
    assert why_not_stack(members) is None
