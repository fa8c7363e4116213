"""What must hold for a decoder of any composition."""

import pytest
import torch
from torch._dynamo.utils import counters

from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    LayerNormConfig,
    RMSNormConfig,
    RopeConfig,
    SinusoidalConfig,
    linear_cross_entropy,
    masks,
)
from tests.nn.decoders import KINDS, build, packed, tokens


@pytest.mark.parametrize("fields", KINDS)
@pytest.mark.parametrize("kind", ["causal", "document", "padding", "prefix"])
@torch.no_grad()
def test_a_later_token_changes_no_earlier_logit(perturb, fields, kind):
    network, ids = build(perturb, **fields), tokens()
    kwargs = {
        "causal": {},
        "document": packed(5, 7),
        "padding": {"mask": masks.causal(12) & masks.padding(torch.arange(12)[None] >= 2)},
        # inside the prefix everything is seen: only what comes after it is later
        "prefix": {"mask": masks.causal(12) | masks.prefix(torch.tensor([4, 6]), 12)},
    }[kind]
    before = network(ids, **kwargs)
    for position in range(7, 12):
        changed = ids.clone()
        changed[:, position] = (changed[:, position] + 1) % 50
        after = network(changed, **kwargs)
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.isclose(after[:, position:], before[:, position:]).all(-1).any()


@pytest.mark.parametrize("fields", KINDS)
@torch.no_grad()
def test_packed_documents_are_the_same_documents_alone(perturb, fields):
    network, ids = build(perturb, **fields), tokens()
    told = packed(5, 4, 3)
    together = network(ids, **told)
    for start, end in [(0, 5), (5, 9), (9, 12)]:
        alone = network(ids[:, start:end])
        torch.testing.assert_close(together[:, start:end], alone, rtol=1e-5, atol=1e-5)
    assert torch.equal(network(ids, document_ids=told["document_ids"]), together)


@torch.no_grad()
def test_one_document_a_row_is_plain_causal(perturb):
    network, ids = build(perturb), tokens()
    torch.testing.assert_close(network(ids, **packed(12)), network(ids))


@pytest.mark.parametrize("fields", KINDS)
@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 1, 4, 2]])
@torch.no_grad()
def test_reading_with_a_cache_equals_reading_at_once(perturb, fields, sizes):
    network, ids = build(perturb, **fields), tokens()
    cache, parts = network.make_cache(2, max_len=12), []
    for part in ids.split(sizes, dim=1):
        parts.append(network(part, cache=cache))
    assert cache.length == 12
    torch.testing.assert_close(torch.cat(parts, dim=1), network(ids), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_reset_cache_has_forgotten(perturb):
    network, ids = build(perturb), tokens()
    cache = network.make_cache(2)
    network(ids, cache=cache)
    cache.reset()
    logits = network.next_logits(ids[:, :4], cache=cache)
    torch.testing.assert_close(logits, network(ids[:, :4])[:, -1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_hidden_times_head(perturb, tied):
    network, ids = build(perturb, tie_embeddings=tied), tokens()
    assert (network.head_weight is network.embedding.weight) == tied
    torch.testing.assert_close(network(ids), network.hidden(ids) @ network.head_weight.T)


def test_under_autocast_the_stream_is_bf16_and_the_parameters_are_not(perturb):
    network = build(perturb)
    types = []
    for block in network.blocks:
        block.register_forward_pre_hook(lambda _, args: types.append(args[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = network.hidden(tokens())
        loss = linear_cross_entropy(hidden, network.head_weight, tokens())
    assert types == [torch.bfloat16] * 2
    assert hidden.dtype == torch.bfloat16
    loss.backward()
    assert {parameter.grad.dtype for parameter in network.parameters()} == {torch.float32}


@torch.no_grad()
def test_a_bf16_network_reads_and_remembers_in_bf16(perturb):
    network, ids = build(perturb).bfloat16(), tokens()
    cache = network.make_cache(2)
    network(ids[:, :7], cache=cache)
    logits = network.next_logits(ids[:, 7:], cache=cache)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits, network(ids)[:, -1], rtol=0.1, atol=0.1)


def test_dropout_acts_in_training_only(perturb):
    network, ids = build(perturb, dropout=0.5), tokens()
    assert torch.equal(network(ids), network(ids))
    network.train()
    assert not torch.equal(network(ids), network(ids))


def test_state_dict_keys_read_well():
    network = DecoderConfig(d_model=32, num_layers=1).build(vocab_size=50, max_seq_len=16)
    assert list(network.state_dict()) == [
        "embedding.weight",
        "blocks.0.attention_norm.weight",
        "blocks.0.attention.q.weight",
        "blocks.0.attention.k.weight",
        "blocks.0.attention.v.weight",
        "blocks.0.attention.out.weight",
        "blocks.0.attention.q_norm.weight",
        "blocks.0.attention.k_norm.weight",
        "blocks.0.feed_forward_norm.weight",
        "blocks.0.feed_forward.up.weight",
        "blocks.0.feed_forward.down.weight",
        "norm.weight",
    ]


# dynamo looks at .grad of everything it is given, and silences the warning in a way pytest undoes
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("documents", [True, False])
def test_blocks_compile_once_for_all_layers_and_steps_and_decoding_compiles_nothing(documents):
    torch.compiler.reset()
    counters.clear()
    config = DecoderConfig(d_model=32, num_layers=3)
    network = config.build(vocab_size=50, max_seq_len=32)
    for block in network.blocks:
        block.compile(backend="eager", fullgraph=True, dynamic=False)
    for step in range(3):
        kwargs = packed(5 + step, 7 - step) if documents else {}
        network(tokens(), **kwargs).sum().backward()
        cache = network.make_cache(2)
        for part in tokens().split([4 + step, 1, 7 - step], dim=1):
            network(part, cache=cache)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert list(network.state_dict()) == list(
        config.build(vocab_size=50, max_seq_len=32).state_dict()
    )


def test_too_long_a_sequence_is_refused(perturb):
    network = build(perturb)
    with pytest.raises(ValueError, match="sequence of 17 tokens is longer than max_seq_len=16"):
        network(tokens(seq=17))
    cache = network.make_cache(2)
    network(tokens(), cache=cache)
    with pytest.raises(ValueError, match="sequence of 18 tokens is longer than max_seq_len=16"):
        network(tokens(seq=6), cache=cache)


def test_document_ids_are_never_ignored(perturb):
    network, documents = build(perturb), packed(12)
    with pytest.raises(ValueError, match="document_ids would be ignored beside a mask or a cache"):
        network(tokens(), **documents, mask=masks.causal(12))
    with pytest.raises(ValueError, match="document_ids would be ignored beside a mask or a cache"):
        network(tokens(), **documents, cache=network.make_cache(2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": 0}, "d_model=0 is not positive; choose at least 1"),
        ({"num_layers": 0}, "num_layers=0 is not positive"),
        ({"logit_cap": 0.0}, "logit_cap=0.0 is not above 0; choose e.g. 15, or null for none"),
        ({"dropout": 1.0}, "dropout=1.0 is a share and must be at least 0 and below 1"),
        ({"d_model": 255}, "d_model=255 is not a multiple of num_heads=2; choose num_heads among"),
        ({"d_model": 6}, "head_dim=3, that is 3 features, and need an even number"),
        (
            {
                "d_model": 33,
                "attention": AttentionConfig(head_dim=8),
                "positions": SinusoidalConfig(),
            },
            "d_model=33 is odd",
        ),
    ],
)
def test_combinations_that_do_not_fit_are_refused_by_the_config(fields, message):
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**fields)


def test_a_head_may_be_of_any_size(perturb):
    attention = AttentionConfig(num_heads=3, head_dim=10)
    assert build(perturb, attention=attention)(tokens()).shape == (2, 12, 50)


def test_the_defaults_are_the_plain_recipe():
    network = DecoderConfig().build(vocab_size=64, max_seq_len=8)
    assert len(network.blocks) == 4
    assert network.config.attention.resolve_head_dim(256) == 128
    assert network.blocks[0].feed_forward.up.weight.shape == (1024, 256)
    assert not [name for name in network.state_dict() if name.endswith("bias")]
    expected = DecoderConfig(
        attention=AttentionConfig(
            num_heads=2, qk_norm=RMSNormConfig(gain="scalar", initial_gain=1.2)
        ),
        feed_forward=FeedForwardConfig(d_ff=None, activation="relu2", gated=False),
        norm=RMSNormConfig(gain="vector"),
        embedding_norm=RMSNormConfig(gain="none"),
        positions=RopeConfig(base=10000.0),
    )
    assert expected == DecoderConfig()


def test_layer_norm_and_gated_layers_compose(perturb):
    network = build(
        perturb,
        norm=LayerNormConfig(bias=False),
        embedding_norm=None,
        feed_forward=FeedForwardConfig(activation="gelu_tanh", gated=True, d_ff=20),
    )
    assert network(tokens()).isfinite().all()
