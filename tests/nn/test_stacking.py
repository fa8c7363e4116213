"""Under ``vmap``, what stands in for a function computes what the function computes for each."""

import pytest
import torch
import torch.nn.functional as F

from pile_lightning.nn import StackedKernels, linear_cross_entropy

MEMBERS = 3


def compare(function, *tensors, in_dims):
    """Check value and gradients of ``function`` over members against one member after another."""
    stacked = [t.clone().requires_grad_(t.is_floating_point()) for t in tensors]
    with StackedKernels():
        out = torch.vmap(function, in_dims=in_dims)(*stacked)
    alone = [t.clone().requires_grad_(t.is_floating_point()) for t in tensors]
    expected = torch.stack(
        [
            function(
                *(
                    tensor if dim is None else tensor.select(dim, member)
                    for tensor, dim in zip(alone, in_dims, strict=True)
                )
            )
            for member in range(MEMBERS)
        ]
    )
    torch.testing.assert_close(out, expected)
    factors = torch.randn(out.shape)
    (out * factors).sum().backward()
    (expected * factors).sum().backward()
    for mine, theirs in zip(stacked, alone, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("shape", [(4,), (5, 4), (2, 5, 4), (2, 3, 5, 4)])
@pytest.mark.parametrize("shared", [False, True])
def test_linear(shape, shared):
    x = torch.randn(shape) if shared else torch.randn(MEMBERS, *shape)
    weight, bias = torch.randn(MEMBERS, 6, 4), torch.randn(MEMBERS, 6)
    compare(F.linear, x, weight, bias, in_dims=(None if shared else 0, 0, 0))


@pytest.mark.parametrize("lead", [(), (2,), (2, 4)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_without_a_mask(lead, causal):
    def attend(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=0.3)

    compare(attend, *torch.randn(3, MEMBERS, *lead, 5, 8), in_dims=(0, 0, 0))


@pytest.mark.parametrize("shape", [(5, 5), (1, 1, 5, 5), (2, 1, 5, 5), (1, 4, 5, 5)])
@pytest.mark.parametrize("own", [False, True])
def test_attention_with_a_mask_of_any_shape(shape, own):
    shape = (MEMBERS, *shape) if own else shape
    mask = (torch.rand(shape) < 0.5) | torch.eye(5, dtype=torch.bool)
    q, k, v = torch.randn(3, MEMBERS, 2, 4, 5, 8)
    compare(
        lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
        *(q, k, v, mask),
        in_dims=(0, 0, 0, 0 if own else None),
    )


def test_attention_with_shared_queries_and_members_elsewhere():
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 4, MEMBERS, 5, 8)
    attend = F.scaled_dot_product_attention
    compare(lambda q, k: attend(q, k, k), q, k, in_dims=(None, 2))


def test_attention_of_grouped_heads():
    def attend(q, k):
        return F.scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=True)

    compare(attend, torch.randn(3, 2, 4, 5, 8), torch.randn(3, 2, 2, 5, 8), in_dims=(0, 0))


@pytest.mark.parametrize("mask", ["none", "causal", "boolean", "float"])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_in_products_is_that_of_the_kernel(mask, scale, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    given = {
        "none": {},
        "causal": {"is_causal": True},
        "boolean": {"attn_mask": torch.arange(5) <= torch.arange(5)[:, None] - 1},
        "float": {"attn_mask": torch.randn(2, 1, 5, 5)},
    }[mask]
    q, k, v = torch.randn(3, 2, 4, 5, 8)
    settings = {"scale": scale, "enable_gqa": True, **given}
    expected = F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], **settings)
    with StackedKernels():
        found = F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], **settings)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_the_loss_with_labels_of_all_or_of_each(reduction):
    hidden, weight = torch.randn(MEMBERS, 2, 7, 8), torch.randn(MEMBERS, 11, 8)
    labels = torch.randint(11, (MEMBERS, 2, 7))
    labels[:, 0, :3] = -100

    def loss(hidden, weight, labels):
        return linear_cross_entropy(hidden, weight, labels, reduction=reduction, chunk_size=5)

    compare(loss, hidden, weight, labels, in_dims=(0, 0, 0))
    compare(loss, hidden, weight, labels[0], in_dims=(0, 0, None))
    compare(loss, hidden[0], weight, labels[0], in_dims=(None, 0, None))


def test_without_members_it_says_where_it_belongs():
    q = torch.randn(1, 2, 3, 4)
    with StackedKernels(), pytest.raises(RuntimeError, match=r"under torch\.vmap only"):
        F.scaled_dot_product_attention(q, q, q)
