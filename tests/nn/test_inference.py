"""A network made ready to generate gives what it gave, as closely as its weights allow."""

import pytest
import torch
from torch import nn

from pile_lightning.device import has_fast_bfloat16
from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    LayerNormConfig,
    TablesConfig,
    complete,
    fast_dtype,
    generate,
    linear_cross_entropy,
    optimize_for_inference,
)
from pile_lightning.nn.attend import attend, attend_cached
from pile_lightning.nn.cache import LayerCache
from pile_lightning.nn.initialization import Linear
from pile_lightning.nn.int8 import Int8Linear, quantize_rows
from pile_lightning.nn.packed import PackedLinear, can_pack

KINDS = [
    pytest.param({}, id="default"),
    pytest.param({"tie_embeddings": False, "tables": TablesConfig(ngram_rows=(64,))}, id="tables"),
    pytest.param(
        {
            "norm": LayerNormConfig(),
            "attention": AttentionConfig(num_heads=4, num_kv_heads=2, bias=True),
            "feed_forward": FeedForwardConfig(activation="silu", gated=True, bias=True),
        },
        id="biases",
    ),
]


def build(perturb, **fields):
    config = DecoderConfig(**{"d_model": 64, "num_layers": 2} | fields)
    return perturb(config.build(vocab_size=50, max_seq_len=32))


def tokens(batch=3, seq=12):
    return torch.randint(50, (batch, seq), generator=torch.Generator().manual_seed(5))


def distance(one, other):
    """Relative, over all logits."""
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("fields", KINDS)
@torch.no_grad()
def test_packed_weights_give_the_same_logits(perturb, fields, monkeypatch):
    monkeypatch.setattr("pile_lightning.nn.packed._WORTHWHILE", 0)
    network, ids = build(perturb, **fields), tokens()
    before, single = network(ids), network(ids[:1, :1])
    optimize_for_inference(network)
    assert isinstance(network.blocks[0].feed_forward.down, PackedLinear)
    torch.testing.assert_close(network(ids), before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network(ids[:1, :1]), single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fields", KINDS)
@torch.no_grad()
def test_bf16_is_what_a_cast_makes_of_it_and_norms_keep_their_gains(perturb, fields):
    network, ids = build(perturb, **fields), tokens()
    exact, gains = network(ids), network.norm.weight.clone()
    optimize_for_inference(network, dtype=torch.bfloat16)
    assert torch.equal(network.norm.weight, gains)
    types = {p.dtype for n, p in network.named_parameters() if "norm" not in n}
    assert types <= {torch.bfloat16}
    assert 0 < distance(network(ids).float(), exact) < 0.03


# rounding a weight moves it by at most 1/254 of the largest of its row, and what moves a logit are
# the sums of many such errors
@pytest.mark.parametrize("fields", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_int8_weights_are_close(perturb, fields, dtype):
    network, ids = build(perturb, **fields), tokens()
    exact = network(ids)
    optimize_for_inference(network, dtype=dtype, quantize="int8")
    assert isinstance(network.blocks[0].feed_forward.down, Int8Linear)
    assert 0 < distance(network(ids).float(), exact) < 0.04
    assert network.head_weight.shape == (50, 64)
    hidden = network.hidden(ids)
    nats = linear_cross_entropy(hidden.float(), network.head_weight.float(), ids)
    expected = torch.nn.functional.cross_entropy(
        exact.flatten(0, 1), ids.flatten(), reduction="sum"
    )
    assert nats.item() == pytest.approx(expected.item(), rel=0.02)


@pytest.mark.parametrize("quantize", ["none", "int8"])
@torch.no_grad()
def test_cached_generation_in_bf16_is_near_the_full_forward(perturb, quantize):
    network = build(perturb)
    optimize_for_inference(network, dtype=torch.bfloat16, quantize=quantize)
    texts = [row[: 4 + number] for number, row in enumerate(tokens())]
    for step in generate(network, texts, max_new_tokens=12, temperature=0):
        for number, (text, new) in enumerate(zip(texts, step, strict=True)):
            logits = network(text[None])[0, -1].float()
            # what was taken is the likeliest, or all but
            assert logits[new] >= logits.max() - 0.05 * logits.std()
            texts[number] = torch.cat((text, new[None]))


@pytest.mark.parametrize("rows", [1, 8, 9, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("worthwhile", [0, 2**18])
def test_int8_products_are_those_of_the_widened_weight(rows, dtype, worthwhile, monkeypatch):
    monkeypatch.setattr("pile_lightning.nn.int8._BLOCK", 16)
    monkeypatch.setattr("pile_lightning.nn.int8._WORTHWHILE", worthwhile)
    layer = Int8Linear(torch.randn(50, 64).to(dtype), torch.randn(50).to(dtype))
    x = torch.randn(rows, 1, 64).to(dtype)
    expected = x.float() @ layer.weight.float().T + layer.bias.float()
    assert layer(x).shape == (rows, 1, 50)
    assert layer(x).dtype == dtype
    assert distance(layer(x).float(), expected) < (1e-5 if dtype == torch.float32 else 1e-2)


def test_rounding_moves_no_weight_by_more_than_half_a_step():
    weight = torch.randn(20, 64)
    steps, scale = quantize_rows(weight)
    assert ((steps * scale[:, None] - weight).abs() <= 0.5001 * scale[:, None]).all()
    assert torch.equal(scale, weight.abs().amax(1) / 127)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_layer_is_a_plain_one_and_can_be_unpacked(dtype, monkeypatch):
    monkeypatch.setattr("pile_lightning.nn.packed._WORTHWHILE", 0)
    weight, bias, x = (torch.randn(*s).to(dtype) for s in ((50, 64), (50,), (2, 3, 64)))
    if not can_pack(weight):
        pytest.skip(f"oneDNN does not pack {dtype} on this CPU")
    layer, expected = PackedLinear(weight, bias), torch.nn.functional.linear(x, weight, bias)
    assert torch.equal(layer.weight, weight)
    torch.testing.assert_close(layer(x), expected)
    assert not can_pack(weight.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("hidden", [0, 2])
def test_one_query_attends_as_many_do(dtype, kv_heads, hidden):
    cache, parts = LayerCache(batch_size=2, max_len=9), []
    q = torch.randn(2, 4, 7, 16).to(dtype)
    k, v = (torch.randn(2, kv_heads, 7, 16).to(dtype) for _ in range(2))
    mask = (torch.arange(7) >= hidden)[None, None, None]
    for t in range(7):
        at = slice(t, t + 1)
        seen = mask[..., : t + 1] if hidden else None
        parts.append(attend_cached(q[:, :, at], k[:, :, at], v[:, :, at], seen, cache))
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    expected = attend(q.float(), k.float(), v.float(), causal & mask)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    got = torch.cat(parts, dim=2).float()
    torch.testing.assert_close(
        got[:, :, hidden:], expected[:, :, hidden:], rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_come_and_go(perturb, dtype):
    network = build(perturb)
    optimize_for_inference(network, dtype=dtype)
    prompts = tokens(batch=5).tolist()
    found = complete(network, prompts, max_new_tokens=9, batch_size=2, ended=lambda _, id: id < 9)
    lengths = [len(ids) for _, ids in found]
    assert len(lengths) == 5
    assert min(lengths) < 9


def test_a_network_of_other_layers_is_cast_and_nothing_more():
    network = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 10)).train()
    optimize_for_inference(network, dtype=torch.bfloat16)
    assert type(network[1]) is nn.Linear
    assert network(torch.tensor([[1]])).dtype == torch.bfloat16
    assert not network.training


def test_an_unknown_rounding_is_refused(perturb):
    with pytest.raises(
        ValueError, match="quantize='int4' is unknown; choose one of 'int8', 'none'"
    ):
        optimize_for_inference(build(perturb), quantize="int4")


@pytest.fixture
def forgetful():
    """Let what the device can do be asked anew, and again after the test."""
    has_fast_bfloat16.cache_clear()
    yield
    has_fast_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("known", "dtype"), [({"avx512_bf16": True}, torch.bfloat16), ({}, torch.float32)]
)
@pytest.mark.usefixtures("forgetful")
def test_bf16_is_taken_where_the_device_has_it(monkeypatch, known, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert fast_dtype(torch.device("cpu")) == dtype


@torch.no_grad()
def test_bf16_stays_plain_where_the_cpu_cannot_pack_it(monkeypatch, perturb):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    network = build(perturb)
    optimize_for_inference(network, dtype=torch.bfloat16)
    assert isinstance(network.blocks[0].feed_forward.down, Linear)
    assert network(tokens()).dtype == torch.bfloat16
