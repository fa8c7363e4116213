"""Masks are boolean data that broadcast to (batch, heads, query, key) and combine by & and |."""

import torch

from pile_lightning.nn import masks


def test_causal_lets_the_last_queries_of_more_keys_see_what_is_before_them():
    assert torch.equal(masks.causal(2, 5), masks.causal(5)[:, :, 3:])


def test_padding_hides_keys_for_every_query():
    allowed = masks.causal(3) & masks.padding(torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert allowed.shape == (2, 1, 3, 3)
    assert not allowed[0, 0, :, 2].any()
    assert torch.equal(allowed[1:], masks.causal(3))


def test_documents_do_not_see_each_other_even_when_an_id_returns_in_another_row():
    allowed = masks.document(torch.tensor([[0, 0, 1], [1, 1, 1]]))
    assert allowed[0, 0].tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
    ]
    assert allowed[1].all()


def test_a_prefix_widens_causal_by_the_keys_of_each_rows_prefix():
    allowed = masks.causal(4) | masks.prefix(torch.tensor([0, 3]), 4)
    assert torch.equal(allowed[:1], masks.causal(4))
    assert allowed[1, 0, :, :3].all()
    assert allowed[1, 0, :, 3].tolist() == [False, False, False, True]
