"""Causal attention in blocks is causal attention, and what a CPU compiles."""

import pytest
import torch
import torch.nn.functional as F

from pile_lightning.nn import causal_blocks, masks
from pile_lightning.nn.attend import attend


@pytest.mark.parametrize("seq", [1, 100, 128, 129, 700])
@pytest.mark.parametrize("kv_heads", [1, 4])
@pytest.mark.parametrize("documents", [False, True])
def test_values_and_gradients_are_the_kernels(seq, kv_heads, documents):
    q = torch.randn(2, 4, seq, 8, requires_grad=True)
    k, v = (torch.randn(2, kv_heads, seq, 8, requires_grad=True) for _ in range(2))
    allowed, first = masks.causal(seq), None
    if documents:
        ids = torch.stack([torch.arange(seq) // 60, torch.arange(seq) // 250])
        allowed, first = allowed & masks.document(ids), masks.Documents.of(ids).first
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=True)
    out = causal_blocks.causal_blocks(q, k, v, first)
    torch.testing.assert_close(out, expected)
    direction = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, (q, k, v), direction),
        torch.autograd.grad(expected, (q, k, v), direction),
    )


def test_a_later_token_changes_nothing_earlier_not_by_a_bit():
    q, k, v = torch.randn(3, 1, 1, 300, 8).bfloat16()
    before = causal_blocks.causal_blocks(q, k, v)
    for tensor in (q, k, v):
        tensor[:, :, 200:] += 1
    after = causal_blocks.causal_blocks(q, k, v)
    assert torch.equal(before[:, :, :200], after[:, :, :200])
    assert not torch.equal(before[:, :, 200:], after[:, :, 200:])


@pytest.mark.parametrize(("seq", "taken"), [(64, True), (1025, False)])
@pytest.mark.parametrize("documents", [False, True])
def test_compiled_on_a_cpu_short_rows_take_the_blocks(monkeypatch, seq, taken, documents):
    seen = []
    real = causal_blocks.causal_blocks
    monkeypatch.setattr(
        "pile_lightning.nn.attend.causal_blocks",
        lambda *qkv: (seen.append(1), real(*qkv))[1],
    )
    q, k, v = torch.randn(3, 1, 1, seq, 8)
    mask = masks.CAUSAL
    if documents:
        mask = masks.Documents.of(torch.arange(seq)[None] // 10)
    eager = attend(q, k, v, mask)
    assert not seen
    compiled = torch.compile(attend, backend="eager", dynamic=False)
    torch.testing.assert_close(compiled(q, k, v, mask), eager)
    assert bool(seen) == taken
