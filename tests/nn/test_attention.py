"""Attention is softmax(q k^T / sqrt(d)) v with the mask inside the softmax, for any mask."""

import math

import pytest
import torch

from pile_lightning.nn import AttentionConfig, KVCache, masks
from pile_lightning.nn.attend import attend


def by_hand(q, k, v, allowed):
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("kind", ["none", "causal", "document"])
def test_it_equals_the_formula(kv_heads, kind):
    q = torch.randn(2, 4, 6, 8)
    k, v = torch.randn(2, 2, kv_heads, 6, 8)
    documents = masks.causal(6) & masks.document(torch.arange(6).expand(2, 6) // 4)
    mask, allowed = {
        "none": (None, torch.tensor(True)),
        "causal": (masks.CAUSAL, masks.causal(6)),
        "document": (documents, documents),
    }[kind]
    torch.testing.assert_close(attend(q, k, v, mask), by_hand(q, k, v, allowed))


def test_a_query_that_may_see_nothing_gathers_zeros_and_has_finite_gradients():
    q, k, v = torch.randn(3, 1, 2, 4, 8).requires_grad_().unbind()
    allowed = masks.causal(4) & masks.padding(torch.tensor([[0, 0, 1, 1]]))
    out = attend(q, k, v, allowed)
    assert (out[:, :, :2] == 0).all()
    for gradient in torch.autograd.grad(out.square().sum(), (q, k, v)):
        assert gradient.isfinite().all()


def test_queries_and_keys_have_norms_of_their_own():
    attention = AttentionConfig(num_heads=2).build(16)
    assert attention.q_norm is not attention.k_norm
    assert attention.q_norm.weight.item() == attention.k_norm.weight.item() == pytest.approx(1.2)


def test_normalised_queries_and_keys_make_their_scale_irrelevant(perturb):
    attention, x = perturb(AttentionConfig(num_heads=2).build(16)), torch.randn(1, 5, 16)
    before = attention(x, mask=masks.CAUSAL)
    with torch.no_grad():
        attention.q.weight *= 100
        attention.k.weight *= 100
    torch.testing.assert_close(attention(x, mask=masks.CAUSAL), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 3), (0, None), (4, 0)])
def test_heads_must_share_keys_evenly(heads, kv_heads):
    with pytest.raises(ValueError, match=f"num_heads={heads} is not a positive multiple of num_kv"):
        AttentionConfig(num_heads=heads, num_kv_heads=kv_heads)


def test_an_overfull_cache_says_how_full_it_is_and_stays_as_it_was():
    cache = KVCache(num_layers=1, batch_size=1, max_len=4)
    keys = torch.randn(1, 2, 3, 8)
    cache.layers[0].append(keys, keys)
    with pytest.raises(ValueError, match="holds 3 of max_len=4 positions, and 2 more do not fit"):
        cache.layers[0].append(keys[:, :, :2], keys[:, :, :2])
    assert cache.length == 3


def test_a_cache_is_made_for_one_batch_size():
    cache = KVCache(num_layers=1, batch_size=1, max_len=4)
    keys = torch.randn(2, 2, 3, 8)
    with pytest.raises(ValueError, match=r"batch_size=1 and got a batch of 2.*make_cache\(2\)"):
        cache.layers[0].append(keys, keys)
