"""Rows of any lengths, read side by side, are each read as if it were alone."""

import pytest
import torch

from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    KVCache,
    LearnedConfig,
    MatchesConfig,
    PileConfig,
    ShortConvConfig,
    ShortcutsConfig,
    SinusoidalConfig,
    TablesConfig,
    complete,
    generate,
)
from pile_lightning.nn.rows import _AT_ONCE, Rows
from tests.nn.decoders import EVERYWHERE

KINDS = [
    pytest.param({}, id="default"),
    pytest.param({"attention": AttentionConfig(num_heads=4, num_kv_heads=2)}, id="grouped"),
    pytest.param({"tables": TablesConfig(ngram_rows=(64, 64))}, id="tables"),
    pytest.param({"shortcuts": ShortcutsConfig(), "logit_cap": 3.0}, id="shortcuts"),
    pytest.param({"short_conv": ShortConvConfig()}, id="convolved"),
    pytest.param({"short_conv": EVERYWHERE}, id="convolved everywhere"),
    pytest.param({"matches": MatchesConfig(lengths=(1, 2))}, id="matches"),
    pytest.param({"positions": LearnedConfig()}, id="learned"),
    pytest.param({"positions": SinusoidalConfig()}, id="sinusoidal"),
]
TEXTS = [[3, 1, 4, 1, 5], [9], [2, 6], [5, 3, 5, 8, 9, 7, 9, 3], [2, 3, 8, 4, 6]]


def build(perturb, **fields):
    config = DecoderConfig(d_model=32, num_layers=2, **fields)
    return perturb(config.build(vocab_size=50, max_seq_len=16))


def alone(network, text):
    with torch.no_grad():
        return network(torch.tensor([text]))[0, -1]


def make_rows(network, capacity=5, room=30):
    return Rows(network, capacity=capacity, room=room, limit=16, device=torch.device("cpu"))


def check(network, rows, logits):
    for text, row in zip(rows.texts, logits, strict=True):
        torch.testing.assert_close(row, alone(network, text), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fields", KINDS)
def test_rows_of_any_lengths_are_read_as_alone_also_past_the_context(perturb, fields):
    network = build(perturb, **fields)
    rows = make_rows(network)
    check(network, rows, rows.add(TEXTS))
    generator = torch.Generator().manual_seed(3)
    for _ in range(22):
        ids = torch.randint(50, (len(TEXTS),), generator=generator).tolist()
        check(network, rows, rows.step(ids))
    assert max(map(len, rows.texts)) <= 16


@pytest.mark.parametrize("fields", KINDS)
def test_rows_come_and_go_and_leave_the_others_alone(perturb, fields):
    network = build(perturb, **fields)
    rows = make_rows(network, capacity=3)
    check(network, rows, rows.add(TEXTS[:3]))
    check(network, rows, rows.step([7, 8, 9]))
    rows.drop(0)
    assert rows.texts == [[2, 6, 9], [9, 8]]
    check(network, rows, rows.step([1, 2]))
    added = rows.add([TEXTS[3]])
    torch.testing.assert_close(added[0], alone(network, TEXTS[3]), rtol=1e-5, atol=1e-5)
    check(network, rows, rows.step([3, 4, 5]))
    for row in (2, 0, 0):
        rows.drop(row)
    assert rows.texts == []
    check(network, rows, rows.add(TEXTS[:2]))


def test_a_context_of_one_token_is_read_again_at_each(perturb):
    network = build(perturb)
    rows = Rows(network, capacity=2, room=9, limit=1, device=torch.device("cpu"))
    rows.add([[4], [5]])
    for ids in ([6, 7], [8, 9]):
        check(network, rows, rows.step(ids))
        assert rows.texts == [[each] for each in ids]


def test_a_long_text_is_read_in_parts(perturb, monkeypatch):
    network = build(perturb)
    monkeypatch.setitem(_AT_ONCE, "cpu", 6)
    rows, read = make_rows(network, capacity=7), []
    next_logits = network.next_logits

    def watched(ids, *, cache):
        read.append(tuple(ids.shape))
        return next_logits(ids, cache=cache)

    monkeypatch.setattr(network, "next_logits", watched)
    check(network, rows, rows.add([*TEXTS, TEXTS[0], [1] * 14]))
    assert all(batch * seq <= 6 for batch, seq in read)


def test_what_is_past_a_rows_end_counts_nothing_even_if_it_is_no_number(perturb):
    network = build(perturb)
    rows = make_rows(network, capacity=2)
    rows.add(TEXTS[:2])
    _, cache = rows.cached
    keys, values = cache.layers[0]._storage
    keys[1, :, 1:] = 1e6
    values[1, :, 1:] = -1e6
    check(network, rows, rows.step([5, 6]))


@pytest.mark.parametrize("cached", [True, False])
def test_generating_from_prompts_of_any_lengths_is_generating_from_each(perturb, cached):
    network = build(perturb)
    if not cached:
        config = PileConfig(d_model=32, dropout=0.0)
        network = perturb(config.build(vocab_size=50, max_seq_len=16))
    prompts = [torch.tensor(text) for text in TEXTS]
    settings = {"max_new_tokens": 20, "temperature": 0}
    together = torch.stack(list(generate(network, prompts, **settings)), dim=1)
    for prompt, row in zip(prompts, together, strict=True):
        own = torch.stack(list(generate(network, prompt[None], **settings)), dim=1)
        assert torch.equal(row, own[0])


def test_a_row_that_has_stopped_is_not_read_and_changes_no_draw(perturb, monkeypatch):
    network = build(perturb)
    prompts = [torch.tensor(text) for text in TEXTS]

    def drawn(**settings):
        generator = torch.Generator().manual_seed(4)
        tokens = generate(network, prompts, max_new_tokens=12, generator=generator, **settings)
        return torch.stack(list(tokens), dim=1)

    free, sizes, next_logits = drawn(), [], network.next_logits

    def watched(ids, *, cache):
        sizes.append(len(ids))
        return next_logits(ids, cache=cache)

    monkeypatch.setattr(network, "next_logits", watched)
    stop = int(free[1, 3])
    stopped = drawn(stop_ids=[stop])
    reading = [size for size in sizes if size]
    assert reading[-1] < len(TEXTS)
    for row, other in zip(free, stopped, strict=True):
        ends = (row == stop).nonzero()
        length = int(ends[0]) + 1 if len(ends) else stopped.shape[1]
        assert torch.equal(row[:length], other[:length])
        assert (other[length:] == stop).all()


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_what_follows_a_prompt_does_not_depend_on_how_many_are_read_at_once(perturb, batch_size):
    network = build(perturb)
    settings = {"max_new_tokens": 20, "top_k": 20, "top_p": 0.95, "dry_multiplier": 1, "seed": 7}

    def ended(prompt, token):
        return token in (0, 1, 2)

    found = list(complete(network, TEXTS, batch_size=batch_size, ended=ended, **settings))
    assert sorted(each.prompt for each in found) == list(range(len(TEXTS)))
    for prompt, ids in found:
        assert all(not ended(prompt, each) for each in ids[:-1])
        assert len(ids) == 20 or ended(prompt, ids[-1])
    expected = list(complete(network, TEXTS, batch_size=3, ended=ended, **settings))
    assert sorted(found) == sorted(expected)
    assert len({len(ids) for _, ids in found}) > 1, "nothing ended early"


def test_no_prompts_have_no_completions_and_no_tokens_are_empty_ones(perturb):
    network = build(perturb)
    assert list(complete(network, [], max_new_tokens=3)) == []
    assert [each.ids for each in complete(network, [[1], [2]], max_new_tokens=0)] == [[], []]
    assert list(generate(network, torch.tensor([[1]]), max_new_tokens=0)) == []


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[1], []], {}, "prompt 1 has no tokens; give at least one"),
        ([[1], [2] * 17], {}, "prompt 1 has 17 tokens and the context holds max_seq_len=16"),
        ([[1]], {"batch_size": 0}, "batch_size=0 reads nothing; choose at least 1"),
        ([[1]], {"top_k": 0}, "top_k=0 leaves no token"),
    ],
)
def test_prompts_are_checked_when_asked(perturb, prompts, settings, message):
    with pytest.raises(ValueError, match=message):
        complete(build(perturb), prompts, **{"max_new_tokens": 3} | settings)


@pytest.mark.parametrize("prompts", [torch.tensor([1]), [], [torch.tensor([[1]])]])
def test_prompts_of_other_shapes_are_refused(perturb, prompts):
    with pytest.raises(ValueError, match=r"are none; give \(batch, seq\), or a list"):
        generate(build(perturb), prompts, max_new_tokens=3)


def test_rows_of_different_lengths_are_read_one_position_at_a_time():
    cache, keys = KVCache(num_layers=1, batch_size=2, max_len=8), torch.randn(1, 2, 3, 8)
    cache.clear()
    for row, length in enumerate((3, 2)):
        other = KVCache(num_layers=1, batch_size=1, max_len=4)
        other.layers[0].append(keys[:, :, :length], keys[:, :, :length])
        cache.put(row, other)
    assert cache.lengths == [3, 2]
    with pytest.raises(ValueError, match="2 positions a row came for rows of different lengths"):
        cache.layers[0].append(torch.randn(2, 2, 2, 8), torch.randn(2, 2, 2, 8))
