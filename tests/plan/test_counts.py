"""Parameters, operations and optimizer state are those of the real thing."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pile_lightning import CausalLM, NetworkConfig
from pile_lightning.nn import AttentionConfig, DecoderConfig, TablesConfig
from pile_lightning.optim import AdamWConfig, MuonConfig, OptimizerConfig
from pile_lightning.parallel import Layout
from pile_lightning.plan import Kind, Precision, count_parameters, profile_step
from pile_lightning.plan.optimizer_state import optimizer_state
from pile_lightning.plan.parameters import tensor_ranks

CONFIG = DecoderConfig(d_model=32, num_layers=2, tables=TablesConfig(ngram_rows=(64,)))
SHAPE = {"vocab_size": 50, "max_seq_len": 16}


def profile(network=CONFIG, **settings):
    optimizer = settings.pop("optimizer", AdamWConfig())
    precision = Precision.of(settings.pop("precision", "32-true"))
    return profile_step(
        lambda: CausalLM(network, optimizer=optimizer, **SHAPE),
        rows=2,
        seq_len=16,
        precision=precision,
        **settings,
    )


def test_kinds_add_up_to_the_real_network():
    network = CONFIG.build(**SHAPE)
    counts = count_parameters(network)
    assert counts.total == network.num_parameters
    assert counts.tables == 50 * 32
    assert counts.lookups == 64 * 32 + 2 * 50 * 32
    assert counts.matrices == 2 * 12 * 32 * 32
    network.embedding.weight.requires_grad_(False)
    assert count_parameters(network).frozen == 50 * 32
    assert count_parameters(network).total == network.num_parameters


@dataclass(frozen=True, kw_only=True)
class Factored(OptimizerConfig):
    """An optimizer that looks at numbers, so that fake tensors cannot be stepped."""

    def build(self, network):
        return torch.optim.Adafactor(network.parameters())


@dataclass(frozen=True, kw_only=True)
class Momentum(OptimizerConfig):
    """One of torch."""

    def build(self, network):
        return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("config", [AdamWConfig(), MuonConfig(), Momentum(), Factored()])
def test_optimizer_state_is_that_of_a_real_step(config):
    network = CONFIG.build(**SHAPE)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    real = config.build(network)
    real.step()
    tensors = [v for state in real.state.values() for v in state.values()]
    expected = sum(v.nbytes for v in tensors if isinstance(v, torch.Tensor))
    with FakeTensorMode():
        fake = config.build(CONFIG.build(**SHAPE))
        assert sum(optimizer_state(fake).num_bytes.values()) == expected
    assert sum(size.state for size in profile(optimizer=config).parameters) == expected


def test_the_operations_of_an_optimizer_are_counted():
    network = CONFIG.build(**SHAPE)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = MuonConfig().build(network)
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    assert profile(optimizer=MuonConfig()).optimizer_flops == counter.get_total_flops() > 0
    assert profile(optimizer=AdamWConfig()).optimizer_flops == 0


def test_operations_a_token_are_those_that_are_computed():
    network = CONFIG.build(**SHAPE)
    ids = torch.randint(50, (2, 16))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(ids).sum().backward()
    assert network.flops_per_token(16) * 2 * 16 == counter.get_total_flops()


@pytest.mark.parametrize(("precision", "itemsize"), [("32-true", 4), ("bf16-true", 2)])
def test_weights_have_the_type_of_the_precision(precision, itemsize):
    found = profile(DecoderConfig(d_model=32), precision=precision)
    assert {size.itemsize for size in found.parameters} == {itemsize}


def test_casts_are_told_apart_from_activations():
    assert profile().kept[Kind.CASTS] == profile().kept[Kind.SPLIT_CASTS] == 0
    mixed = profile(precision="bf16-mixed")
    assert mixed.kept[Kind.SPLIT_CASTS] == 2 * 2 * 12 * 32 * 32  # all matrices, two bytes each


def test_checkpointing_keeps_less_and_gives_the_same_parameters():
    kept = {}
    for kind in ("none", "selective", "full"):
        found = profile(checkpointing=kind)
        kept[kind] = sum(found.kept[Kind.ACTIVATIONS : Kind.SPLIT_ACTIVATIONS + 1])
        assert found.parameters == profile().parameters
    assert kept["none"] > kept["selective"] > kept["full"]
    # a block's input is all that full keeps of it
    assert profile(checkpointing="full").kept[Kind.SPLIT_ACTIVATIONS] == 0


def test_a_rank_has_its_part_of_a_matrix_and_all_of_a_scalar():
    sizes = profile(DecoderConfig(d_model=32, num_layers=2)).parameters
    whole = sum(size.num_bytes for size in sizes)
    scalars = sum(size.num_bytes for size in sizes if size.shape == (1,))
    shards = sum(size.on_rank(Layout(shard=2)) for size in sizes)
    assert shards == pytest.approx((whole - scalars) / 2 + scalars)
    split = sum(size.num_bytes for size in sizes if size.tensor_dim is not None)
    peers = sum(size.on_rank(Layout(tensor=2)) for size in sizes)
    assert peers == whole - split / 2


def test_features_divide_where_heads_do():
    attention = AttentionConfig(num_heads=8, num_kv_heads=4)
    network = DecoderConfig(d_model=64, attention=attention).build(**SHAPE)
    assert tensor_ranks(network, 4) == 4
    assert tensor_ranks(network, 3) == 1
    assert tensor_ranks(nn.Linear(4, 4), 8) == 1


class Reads(nn.Embedding):
    """A network that looks at its input."""

    def forward(self, input_ids, *, position_ids=None, document_ids=None):
        logits = super().forward(input_ids)
        return logits * 2 if input_ids.sum() > 10 else logits


@dataclass(frozen=True, kw_only=True)
class ReadsConfig(NetworkConfig):
    """Its config."""

    def build(self, *, vocab_size, max_seq_len):
        return Reads(vocab_size, vocab_size)


def test_a_network_that_asks_for_values_is_told_so():
    with pytest.raises(ValueError, match="asks for the value of a tensor .* torch.where"):
        profile(ReadsConfig())


def test_what_is_not_known_is_named_with_what_is():
    with pytest.raises(ValueError, match=r"precision='8-bit' .* knows 16-mixed, 16-true, 32-true"):
        Precision.of("8-bit")
    with pytest.raises(ValueError, match="shard=0 ranks; choose at least 1"):
        Layout(shard=0)
