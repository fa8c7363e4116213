"""Tokens that would make a repeat longer are drawn less, by how long it is."""

import pytest
import torch
from torch import nn

from pile_lightning.nn import complete, generate
from pile_lightning.nn.repeats import RepeatIndex, lower_repeats


def lowered_by(text, vocab):
    """Look through all places where the end of the text may have stood before."""
    by = torch.zeros(vocab)
    for there in range(len(text) - 1):
        length = 0
        while length <= there and length < 50 and text[there - length] == text[-1 - length]:
            length += 1
        if length >= 2:
            token = text[there + 1]
            by[token] = max(by[token].item(), 0.5 * 1.75 ** (length - 2))
    return by


@pytest.mark.parametrize("vocab", [2, 4, 30])
@pytest.mark.parametrize("size", [1, 2, 3, 80])
def test_the_longest_repeat_that_a_token_goes_on_with_counts(vocab, size):
    texts = torch.randint(vocab, (3, size), generator=torch.Generator().manual_seed(1)).tolist()
    texts[1] = texts[1][: max(1, size // 2)] * 3
    logits = torch.randn(3, vocab)
    expected = logits - torch.stack([lowered_by(text, vocab) for text in texts])
    indexes = [RepeatIndex() for _ in texts]
    for index, text in zip(indexes, texts, strict=True):
        index.follow([5] * (size + 1))  # another text, which is longer: it is forgotten
        for end in range(1, len(text) + 1):  # as it grows
            index.follow(text[:end])
    before = logits.clone()
    torch.testing.assert_close(lower_repeats(logits, indexes, 0.5), expected)
    assert torch.equal(logits, before)
    if size == 80 and vocab < 30:
        assert not torch.equal(expected, logits)
    assert lower_repeats(logits, indexes, 0) is logits


def test_a_new_token_costs_its_own_occurrences_and_not_the_text():
    index = RepeatIndex()
    index.follow(list(range(100_000)))

    class Text(list):
        read = 0

        def __getitem__(self, at):
            found = super().__getitem__(at)
            Text.read += len(found) if isinstance(at, slice) else 1
            return found

    index.follow(Text([*range(100_000), 7]))
    assert Text.read == 1


class Loop(nn.Module):
    """Is sure that after 0 comes 1, then 2, then 0 again, and knows of another way."""

    max_seq_len = 64

    def forward(self, input_ids):
        after = (input_ids + 1) % 3
        return 5.0 * nn.functional.one_hot(after, 6)


@pytest.mark.parametrize(("multiplier", "ends"), [(0, False), (0.4, True)])
def test_a_loop_comes_to_an_end(multiplier, ends):
    sampling = {"max_new_tokens": 30, "temperature": 0, "dry_multiplier": multiplier}
    ids = torch.cat(list(generate(Loop(), torch.tensor([[0]]), **sampling))).tolist()
    assert (ids != [1, 2, 0] * 10) == ends
    assert ids[:5] == [1, 2, 0, 1, 2], "what is short comes again"
    (completion,) = complete(Loop(), [[0]], **sampling)
    assert completion.ids == ids
