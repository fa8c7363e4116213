"""Networks say what they can do through protocols, and a user's need say nothing."""

import pytest
from torch import nn

from pile_lightning.nn import (
    Cached,
    CappedHead,
    ChunkedHead,
    Counted,
    DecoderConfig,
    NetworkConfig,
    PileConfig,
)

PROTOCOLS = (Cached, CappedHead, ChunkedHead, Counted)


@pytest.mark.parametrize(
    ("config", "protocols"),
    [
        (DecoderConfig(d_model=32), {Cached, CappedHead, ChunkedHead, Counted}),
        (PileConfig(d_model=32), {ChunkedHead, Counted}),
    ],
)
def test_ours_offer_what_they_offer(config, protocols):
    network = config.build(vocab_size=50, max_seq_len=16)
    assert {p for p in PROTOCOLS if isinstance(network, p)} == protocols
    assert isinstance(network.blocks, nn.ModuleList)
    assert network.num_parameters == sum(p.numel() for p in network.parameters())


def test_a_bare_network_offers_nothing():
    assert not any(isinstance(nn.Linear(2, 2), p) for p in PROTOCOLS)


def test_configs_are_frozen_and_hashable_data():
    assert hash(DecoderConfig()) == hash(DecoderConfig())
    assert isinstance(PileConfig(), NetworkConfig)
    with pytest.raises(AttributeError):
        DecoderConfig().d_model = 3


def test_a_config_must_build():
    class Unfinished(NetworkConfig):
        pass

    with pytest.raises(TypeError, match="abstract method '?build"):
        Unfinished()
