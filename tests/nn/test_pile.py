"""Pile is the Transformer of the paper, its mask inside the softmax, and models language too."""

import math

import pytest
import torch
from torch import nn

from pile_lightning.nn import Pile, PileConfig, linear_cross_entropy, masks
from tests.nn.decoders import packed, tokens

SIZE = {"d_model": 32, "num_heads": 4, "num_layers": 2, "dropout": 0.0}


def language(perturb):
    return perturb(PileConfig(**SIZE).build(vocab_size=50, max_seq_len=16))


def reference_of(network):
    """``torch.nn.Transformer`` with the weights of ``network``."""
    d_ff = network.encoder[0].feed_forward.layer.up.out_features
    reference = nn.Transformer(
        network.d_model, network.nhead, 2, 2, d_ff, dropout=0.0, batch_first=True
    ).train()  # without dropout the same as eval, but for a fast path that rounds differently
    ours, copied = network.state_dict(), {}
    for half in ("encoder", "decoder"):
        for end in ("weight", "bias"):
            copied[f"{half}.norm.{end}"] = ours[f"{half}_norm.{end}"]
            for layer in range(2):
                old, new = f"{half}.{layer}", f"{half}.layers.{layer}"
                attention = f"{old}.attention.layer"
                copied |= {
                    f"{new}.self_attn.in_proj_{end}": torch.cat(
                        [ours[f"{attention}.{part}.{end}"] for part in "qkv"]
                    ),
                    f"{new}.self_attn.out_proj.{end}": ours[f"{attention}.out.{end}"],
                    f"{new}.linear1.{end}": ours[f"{old}.feed_forward.layer.up.{end}"],
                    f"{new}.linear2.{end}": ours[f"{old}.feed_forward.layer.down.{end}"],
                    f"{new}.norm1.{end}": ours[f"{old}.attention.norm.{end}"],
                }
                last = "norm2" if half == "encoder" else "norm3"
                copied[f"{new}.{last}.{end}"] = ours[f"{old}.feed_forward.norm.{end}"]
                if half == "decoder":
                    cross = f"{old}.cross_attention"
                    copied |= {
                        f"{new}.multihead_attn.in_proj_{end}": torch.cat(
                            [ours[f"{cross}.layer.{part}.{end}"] for part in "qkv"]
                        ),
                        f"{new}.multihead_attn.out_proj.{end}": ours[f"{cross}.layer.out.{end}"],
                        f"{new}.norm2.{end}": ours[f"{cross}.norm.{end}"],
                    }
    reference.load_state_dict(copied)
    return reference


def embedded(network, ids):
    position = torch.arange(ids.shape[1])[:, None]
    frequency = torch.exp(torch.arange(0, 32, 2) * (-math.log(10000.0) / 32))
    table = torch.zeros(ids.shape[1], 32)
    table[:, 0::2], table[:, 1::2] = (position * frequency).sin(), (position * frequency).cos()
    return network.embedding(ids) * math.sqrt(32) + table


@torch.no_grad()
def test_as_a_language_model_it_equals_torch(perturb):
    network, ids = language(perturb), tokens()
    hidden = ~masks.causal(12)[0, 0]
    x = embedded(network, ids)
    expected = reference_of(network)(x, x, src_mask=hidden, tgt_mask=hidden, memory_mask=hidden)
    torch.testing.assert_close(network.hidden(ids), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(network(ids), network.head(expected), rtol=0, atol=1e-5)


@torch.no_grad()
def test_as_sequence_to_sequence_with_padding_it_equals_torch(perturb):
    network = perturb(Pile(32, 4, 2, 50, padding_idx=0, dropout=0.0))
    src, tgt = tokens(seq=9), tokens(seq=6)
    src[0, 5:], src[1, 8:], tgt[1, 4:] = 0, 0, 0
    expected = reference_of(network)(
        embedded(network, src),
        embedded(network, tgt),
        tgt_mask=~masks.causal(6)[0, 0],
        src_key_padding_mask=src == 0,
        tgt_key_padding_mask=tgt == 0,
        memory_key_padding_mask=src == 0,
    )
    torch.testing.assert_close(network(src, tgt), network.head(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("padding_idx", [None, 0])
@torch.no_grad()
def test_a_later_token_changes_no_earlier_logit(perturb, documents, padding_idx):
    config = PileConfig(**SIZE, padding_idx=padding_idx)
    network, ids = perturb(config.build(vocab_size=50, max_seq_len=16)), tokens()
    kwargs = packed(5, 7) if documents else {}
    before = network(ids, **kwargs)
    for position in range(7, 12):
        changed = ids.clone()
        changed[:, position] = changed[:, position] % 49 + 1
        after = network(changed, **kwargs)
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.isclose(after[:, position:], before[:, position:]).all(-1).any()


@torch.no_grad()
def test_sequence_to_sequence_sees_the_whole_source_and_no_later_target(perturb):
    network, src, tgt = perturb(Pile(32, 4, 2, 50, dropout=0.0)), tokens(seq=9), tokens(seq=6)
    before = network(src, tgt)
    changed = src.clone()
    changed[:, -1] = changed[:, -1] % 49 + 1
    assert not torch.isclose(network(changed, tgt), before).all(-1).any()
    changed = tgt.clone()
    changed[:, 3] = changed[:, 3] % 49 + 1
    after = network(src, changed)
    assert torch.equal(after[:, :3], before[:, :3])
    assert not torch.isclose(after[:, 3:], before[:, 3:]).all(-1).any()


@torch.no_grad()
def test_packed_documents_are_the_same_documents_alone(perturb):
    network, ids = language(perturb), tokens()
    told = packed(5, 4, 3)
    together = network(ids, **told)
    for start, end in [(0, 5), (5, 9), (9, 12)]:
        alone = network(ids[:, start:end])
        torch.testing.assert_close(together[:, start:end], alone, rtol=1e-5, atol=1e-5)
    assert torch.equal(network(ids, document_ids=told["document_ids"]), together)


@torch.no_grad()
def test_padding_is_as_if_it_were_not_there(perturb):
    network, src, tgt = perturb(Pile(32, 4, 2, 50, dropout=0.0)), tokens(seq=9), tokens(seq=6)
    longer = torch.cat((src, torch.zeros(2, 3, dtype=torch.long)), dim=1)
    torch.testing.assert_close(network(longer, tgt), network(src, tgt), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network(longer)[:, :9], network(src), rtol=1e-5, atol=1e-5)


def test_rows_of_nothing_but_padding_stay_finite(perturb):
    network = perturb(Pile(32, 4, 2, 50, dropout=0.0))
    ids = tokens()
    ids[0], ids[1, :4] = 0, 0
    logits = network(ids, tokens(seq=5)).sum() + network(ids).sum()
    logits.backward()
    assert logits.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_a_mask_multiplied_in_after_the_softmax_leaks_and_ours_does_not():
    """The original form: what it lets through of key 4 reaches the rows before it."""
    q, k, v = torch.randn(3, 1, 1, 5, 8).unbind()
    later = k.clone()
    later[..., 4, :] += 1
    allowed = masks.causal(5)

    def multiplied(keys):
        return ((q @ keys.transpose(-1, -2) / math.sqrt(8)).softmax(-1) * allowed) @ v

    def before_softmax(keys):
        scores = (q @ keys.transpose(-1, -2) / math.sqrt(8)).masked_fill(~allowed, -torch.inf)
        return scores.softmax(-1) @ v

    from pile_lightning.nn.attend import attend

    assert not torch.isclose(multiplied(k), multiplied(later))[..., :4, :].all(-1).any()
    for mask in (masks.CAUSAL, allowed):
        assert torch.equal(attend(q, k, v, mask)[..., :4, :], attend(q, later, v, mask)[..., :4, :])
        torch.testing.assert_close(attend(q, k, v, mask), before_softmax(k))


@torch.no_grad()
def test_probabilities_are_the_softmax_of_the_logits(perturb):
    network, ids = language(perturb), tokens()
    probabilities = network.probabilities(ids)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 12))
    torch.testing.assert_close(probabilities, network(ids).softmax(-1))


def test_its_signature_is_the_original_ones():
    network = Pile(32, 4, 1, 50)
    assert network.padding_idx == 0
    assert (network.embedding.weight[0] == 0).all()
    assert len(network.encoder) == len(network.decoder) == 1


def test_it_learns_under_autocast(perturb):
    network, ids = language(perturb), tokens()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = network.hidden(ids)
        loss = linear_cross_entropy(hidden, network.head_weight, ids)
    loss.backward()
    assert hidden.dtype == torch.bfloat16
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_packed_rows_and_pairs_exclude_each_other(perturb):
    network = language(perturb)
    with pytest.raises(ValueError, match="describe packed rows of one language, and tgt makes it"):
        network(tokens(), tokens(), **packed(12))


def test_too_long_a_sequence_is_refused(perturb):
    with pytest.raises(ValueError, match="sequence of 17 tokens is longer than max_seq_len=16"):
        language(perturb)(tokens(seq=17))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 5}, "d_model=32 is not a multiple of num_heads=5"),
        ({"d_model": 33, "num_heads": 3}, "d_model=33 is odd"),
        ({"num_layers": 0}, "num_layers=0 is not positive"),
        ({"dropout": -0.1}, "dropout=-0.1 is a share"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields, message):
    settings = SIZE | fields
    with pytest.raises(ValueError, match=message):
        PileConfig(**settings)
    with pytest.raises(ValueError, match=message):
        Pile(
            settings["d_model"],
            settings["num_heads"],
            settings["num_layers"],
            50,
            dropout=settings["dropout"],
        )
