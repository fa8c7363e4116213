"""Generation with a cache is the full forward, leaves the network alone, and draws as told."""

import pytest
import torch
from torch import nn

from pile_lightning.nn import DecoderConfig, PileConfig, Sampling, generate


class Uncached(nn.Module):
    """A user's network: logits, and nothing else."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.lengths = []

    def forward(self, input_ids, *, position_ids=None, document_ids=None):
        self.lengths.append(input_ids.shape[1])
        return self.network(input_ids, position_ids=position_ids, document_ids=document_ids)


def build(perturb, **fields):
    config = DecoderConfig(d_model=32, num_layers=2, **fields)
    return perturb(config.build(vocab_size=50, max_seq_len=16))


def prompt(batch=2, seq=5):
    return torch.randint(50, (batch, seq), generator=torch.Generator().manual_seed(5))


def drawn(network, ids, **kwargs):
    generator = torch.Generator().manual_seed(11)
    return torch.stack(list(generate(network, ids, generator=generator, **kwargs)), dim=1)


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("max_new_tokens", [1, 11, 30])
def test_cached_equals_uncached_also_past_the_context(perturb, temperature, max_new_tokens):
    network = build(perturb)
    settings = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    cached = drawn(network, prompt(), **settings)
    assert cached.shape == (2, max_new_tokens)
    assert torch.equal(cached, drawn(Uncached(network), prompt(), max_seq_len=16, **settings))


@torch.no_grad()
def test_greedy_takes_the_likeliest_of_the_full_forward(perturb):
    network, ids = build(perturb), prompt()
    for step in generate(network, ids, max_new_tokens=8, temperature=0):
        assert torch.equal(step, network(ids)[:, -1].argmax(-1))
        ids = torch.cat((ids, step[:, None]), dim=1)


def test_a_full_context_keeps_its_recent_half(perturb):
    network = Uncached(build(perturb))
    list(generate(network, prompt(seq=14), max_new_tokens=13, max_seq_len=16))
    assert network.lengths == [14, 15, 16, 8, 9, 10, 11, 12, 13, 14, 15, 16, 8]


def test_the_same_generator_draws_the_same(perturb):
    network = build(perturb)
    first, second = (drawn(network, prompt(), max_new_tokens=9, top_k=20) for _ in range(2))
    assert torch.equal(first, second)


def test_prefill_applies_the_head_to_the_last_position_only(perturb, monkeypatch):
    network, rows = build(perturb), []
    linear = torch.nn.functional.linear

    def watched(x, weight, bias=None):
        if weight is network.head_weight:
            rows.append(x.shape[:-1].numel())
        return linear(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    list(generate(network, prompt(), max_new_tokens=3))
    assert rows == [2, 2, 2]


def test_the_network_is_as_it_was_between_two_tokens(perturb):
    network = build(perturb, dropout=0.5).train()
    network.blocks[1].eval()
    modes = [module.training for module in network.modules()]
    ids = prompt(batch=32)
    first = next(generate(network, ids, max_new_tokens=5, temperature=0))
    assert [module.training for module in network.modules()] == modes
    assert torch.is_grad_enabled()
    assert torch.equal(first, network.eval()(ids)[:, -1].argmax(-1)), "dropout acted"


def test_the_network_is_as_it_was_after_an_error(perturb):
    network = build(perturb).train()
    with pytest.raises(IndexError):
        next(generate(network, prompt() + 50, max_new_tokens=5))
    assert all(module.training for module in network.modules())


def test_what_is_drawn_may_be_trained_on(perturb):
    network = build(perturb)
    tokens = drawn(network, prompt(), max_new_tokens=4)
    network(tokens).sum().backward()


def test_a_stopped_row_repeats_its_stop_and_all_stopped_rows_end_it(perturb):
    network = build(perturb)
    free = drawn(network, prompt(batch=4), max_new_tokens=12)
    stop_ids = set(free[:, 2].tolist())
    tokens = drawn(network, prompt(batch=4), max_new_tokens=12, stop_ids=stop_ids)
    stopped = torch.isin(tokens, torch.tensor(sorted(stop_ids)))
    assert 0 < tokens.shape[1] <= 3
    assert stopped[:, -1].all()
    for row, ends in zip(tokens, stopped, strict=True):
        first = int(ends.int().argmax())
        assert (row[first:] == row[first]).all()


def test_a_network_without_a_context_or_cache_will_do(perturb):
    network = perturb(PileConfig(d_model=32, dropout=0.0).build(vocab_size=50, max_seq_len=8))
    assert drawn(network, prompt(), max_new_tokens=10).shape == (2, 10)
    assert drawn(Uncached(build(perturb)), prompt(), max_new_tokens=5).shape == (2, 5)


# dynamo looks at .grad of everything it is given, and silences the warning in a way pytest undoes
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_window_that_grows_is_not_compiled_at_every_length(perturb):
    network = perturb(PileConfig(d_model=32, dropout=0.0).build(vocab_size=50, max_seq_len=32))
    expected = drawn(network, prompt(), max_new_tokens=12)
    torch.compiler.reset()
    for block in network.blocks:
        block.compile(backend="eager", fullgraph=True, dynamic=False)
    assert torch.equal(drawn(network, prompt(), max_new_tokens=12), expected)


def sample(logits, **sampling):
    uniform = torch.rand(len(logits), generator=torch.Generator().manual_seed(3))
    return Sampling(**sampling).draw(logits, uniform)


def test_top_k_draws_from_the_k_likeliest():
    logits = torch.randn(1, 20).expand(500, -1)
    ids = sample(logits, temperature=5.0, top_k=3)
    assert set(ids.tolist()) == set(logits[0].topk(3).indices.tolist())


def test_top_p_draws_from_the_fewest_that_reach_it():
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log().expand(500, -1)
    assert set(sample(logits, top_p=0.74).tolist()) == {1, 3}
    assert set(sample(logits, top_p=0.76).tolist()) == {1, 2, 3}
    assert set(sample(logits, top_p=0.01).tolist()) == {1}
    assert set(sample(logits, top_k=2, top_p=0.6).tolist()) == {1}, "top_p comes after top_k"


def test_temperature_sharpens():
    logits = torch.tensor([[0.0, 1.0]]).expand(4000, -1)
    for temperature in (0.5, 1.0, 2.0):
        expected = (logits[0] / temperature).softmax(-1)[1].item()
        share = sample(logits, temperature=temperature).float().mean().item()
        assert share == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 is negative; choose 0 for the likeliest"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_k": 0}, "top_k=0 leaves no token; choose at least 1, or None"),
        ({"top_p": 0.0}, "top_p=0.0 is no probability"),
        ({"top_p": 1.1}, "top_p=1.1 is no probability"),
        ({"dry_multiplier": -0.1}, "dry_multiplier=-0.1 is negative, .* choose e.g. 0.4, or 0"),
        ({"max_new_tokens": -1}, "max_new_tokens=-1 is negative; choose 0 or more"),
        ({"max_seq_len": 4}, "prompt has 5 tokens and the context holds max_seq_len=4; shorten"),
        ({"max_seq_len": 17}, "sequence of 17 tokens is longer than max_seq_len=16"),
    ],
)
def test_settings_are_checked_when_asked_not_at_the_first_token(perturb, settings, message):
    with pytest.raises(ValueError, match=message):
        generate(build(perturb), prompt(), **{"max_new_tokens": 3} | settings)


def test_a_prompt_must_have_tokens_and_fit(perturb):
    with pytest.raises(ValueError, match="the prompt has no tokens; give at least one"):
        generate(build(perturb), prompt(seq=0), max_new_tokens=3)
    with pytest.raises(
        ValueError, match="prompt has 17 tokens and the context holds max_seq_len=16"
    ):
        generate(build(perturb), prompt(seq=17), max_new_tokens=3)
