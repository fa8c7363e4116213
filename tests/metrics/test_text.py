import math

import pytest
import torch

from pile_lightning.metrics import BitsPerByte, Perplexity


def rows(seed, n, domains):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(n, generator=generator) * 100,
        torch.randint(1, 50, (n,), generator=generator),
        torch.randint(domains, (n,), generator=generator),
    )


@pytest.mark.parametrize("kind", [BitsPerByte, Perplexity])
def test_batches_of_any_size_give_the_score_of_all_rows(kind):
    nats, count, domain = rows(0, 60, 3)
    whole, parts = kind(num_domains=3), kind(num_domains=3)
    whole.update(nats, count, domain)
    for piece in torch.arange(60).split(7):
        parts.update(nats[piece], count[piece], domain[piece])
    torch.testing.assert_close(whole.compute(), parts.compute())
    torch.testing.assert_close(whole.by_domain(), parts.by_domain())


def test_scores_are_ratios_of_sums_and_not_means_of_ratios():
    metric = BitsPerByte(num_domains=2)
    metric.update(torch.tensor([8.0, 2.0, 6.0]), torch.tensor([1, 9, 10]), torch.tensor([0, 0, 1]))
    assert metric.compute().item() == pytest.approx(16 / math.log(2) / 20)
    assert metric.by_domain().tolist() == pytest.approx([1 / math.log(2), 0.6 / math.log(2)])


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    metric = Perplexity()
    metric.update(torch.full((4,), 10 * math.log(512)), torch.full((4,), 10))
    assert metric.compute().item() == pytest.approx(512)


def test_a_domain_without_rows_is_nan_and_spoils_nothing():
    metric = BitsPerByte(num_domains=2)
    metric.update(torch.tensor([1.0]), torch.tensor([2]), torch.tensor([1]))
    assert math.isnan(metric.by_domain()[0])
    assert metric.compute().item() == pytest.approx(0.5 / math.log(2))


def test_many_small_numbers_lose_nothing():
    metric = Perplexity()
    for _ in range(100):
        metric.update(torch.full((1000,), 1e4), torch.full((1000,), 1000))
    assert metric.nats.item() == 1e9


def test_no_domain_is_refused():
    with pytest.raises(ValueError, match="num_domains=0: there is at least one"):
        BitsPerByte(num_domains=0)
