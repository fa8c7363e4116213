"""What must hold for a decoder of any composition."""

import pytest
import torch
from torch._dynamo.utils import counters

from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    LayerNormConfig,
    LearnedConfig,
    NoPositionsConfig,
    RMSNormConfig,
    RopeConfig,
    ShortcutsConfig,
    SinusoidalConfig,
    TablesConfig,
    cross_entropy_sum,
    linear_cross_entropy,
    masks,
)

POSITIONS = [
    RopeConfig(),
    RopeConfig(fraction=0.5),
    SinusoidalConfig(),
    LearnedConfig(),
    NoPositionsConfig(),
]
KINDS = [
    *({"positions": positions} for positions in POSITIONS),
    {"tables": TablesConfig(ngram_rows=(64, 32), value_layers=1)},
    {"shortcuts": ShortcutsConfig(), "logit_cap": 3.0},
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
    together = network(ids, **packed(5, 4, 3))
    for start, end in [(0, 5), (5, 9), (9, 12)]:
        alone = network(ids[:, start:end])
        torch.testing.assert_close(together[:, start:end], alone, rtol=1e-5, atol=1e-5)


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
def test_tables_tell_apart_what_only_the_token_before_tells():
    # without blocks that read, and positions: whatever differs comes from the tables
    tables = TablesConfig(smear=False, ngram_rows=(1009,), value_layers=0)
    network = DecoderConfig(d_model=8, num_layers=1, tables=tables).build(
        vocab_size=50, max_seq_len=4
    )
    after_two, after_three = torch.tensor([[2, 7]]), torch.tensor([[3, 7]])
    assert torch.equal(network(after_two)[:, 1], network(after_three)[:, 1])  # zero at the start
    torch.nn.init.normal_(network.tables.ngrams[0].weight)
    assert not torch.isclose(network(after_two)[:, 1], network(after_three)[:, 1]).all()
    apart = {"position_ids": torch.tensor([[0, 0]]), "document_ids": torch.tensor([[0, 1]])}
    assert torch.equal(network(after_two, **apart)[:, 1], network(after_three, **apart)[:, 1])


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


@pytest.mark.parametrize("reduction", ["sum", "none"])
@torch.no_grad()
def test_capped_logits_are_those_of_the_loss_and_of_generation(perturb, reduction):
    network, ids = build(perturb, logit_cap=0.5), tokens()
    logits = network(ids)
    assert 0.4 < logits.abs().max() < 0.5
    torch.testing.assert_close(
        linear_cross_entropy(
            network.hidden(ids), network.head_weight, ids, reduction=reduction, logit_cap=0.5
        ),
        cross_entropy_sum(logits, ids, reduction=reduction),
    )
    cache = network.make_cache(2)
    torch.testing.assert_close(network.next_logits(ids, cache=cache), logits[:, -1])


@torch.no_grad()
def test_shortcuts_show_the_token_itself_to_every_block():
    # blocks that write nothing to the stream: what differs comes by the shortcut alone
    shortcuts = ShortcutsConfig(values=False)
    network = DecoderConfig(d_model=8, num_layers=3, shortcuts=shortcuts).build(
        vocab_size=50, max_seq_len=4
    )
    network.norm = torch.nn.Identity()
    once = network.hidden(torch.tensor([[7]]))
    network.shortcuts.stream_shares.copy_(torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(network.hidden(torch.tensor([[7]])), 3.5 * once)


@pytest.mark.parametrize(("layer", "share"), [(0, 0.3), (1, 0.8)])
@torch.no_grad()
def test_every_block_attends_to_values_of_the_embedding(layer, share):
    network = DecoderConfig(d_model=8, num_layers=2, shortcuts=ShortcutsConfig(stream=False)).build(
        vocab_size=50, max_seq_len=4
    )
    for block in network.blocks:  # its own values are none, and it writes what it gathers
        torch.nn.init.zeros_(block.attention.v.weight)
    network.shortcuts.value_shares.copy_(torch.tensor([0.3, 0.8]))
    block = network.blocks[layer]
    torch.nn.init.eye_(block.attention.out.weight)
    network.norm = torch.nn.Identity()
    ids = torch.tensor([[7]])
    start = network.embedding_norm(network.embedding(ids))
    expected = start + share * network.shortcuts.source(start)
    torch.testing.assert_close(network.hidden(ids), expected, rtol=1e-4, atol=1e-5)


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
