"""What a decoder has beside its blocks: tables, shortcuts, capped logits."""

import pytest
import torch

from pile_lightning.nn import (
    DecoderConfig,
    ShortcutsConfig,
    TablesConfig,
    cross_entropy_sum,
    linear_cross_entropy,
)
from tests.nn.decoders import KINDS, build, tokens


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


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize(
    "fields",
    [
        *KINDS,
        {"shortcuts": ShortcutsConfig(stream=False)},
        {"tables": TablesConfig(ngram_rows=(), value_layers=2)},
        {"tables": TablesConfig(smear=False, value_layers=0)},
    ],
)
def test_no_parameter_is_left_without_a_gradient(perturb, num_layers, fields):
    """One that is would be an error under ddp."""
    network = build(perturb, num_layers=num_layers, **fields)
    network(tokens()).sum().backward()
    assert not [name for name, each in network.named_parameters() if each.grad is None]


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
