"""A mixture: exact shares in every stretch, each domain's rows in turn, whatever is asked first."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pile_lightning.data import MixtureConfig, StageConfig
from pile_lightning.data.mixture import MixedOrder, Mixture, MixtureStage

SHARES = st.lists(st.floats(0.001, 1), min_size=1, max_size=22).map(tuple)
NUM_ROWS = 70_000  # more than one round of the pattern


@given(shares=SHARES)
def test_each_domain_counts_its_rows_without_a_gap(shares):
    domain, index = Mixture([MixtureStage(0, shares)]).at(np.arange(NUM_ROWS))
    for one in range(len(shares)):
        assert (index[domain == one] == np.arange((domain == one).sum())).all()


@given(shares=SHARES)
def test_every_stretch_from_the_start_has_the_shares(shares):
    domain, _ = Mixture([MixtureStage(0, shares)]).at(np.arange(NUM_ROWS))
    exact = np.arange(1, NUM_ROWS + 1)[:, None] * np.array(shares) / sum(shares)
    counted = np.cumsum(domain[:, None] == np.arange(len(shares)), axis=0)
    assert np.abs(counted - exact).max() < 12


@given(shares=SHARES, rows=st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_a_row_does_not_hang_on_which_others_are_asked_for(shares, rows):
    mixture = Mixture([MixtureStage(0, shares), MixtureStage(777, tuple(reversed(shares)))])
    rows = np.array(rows)
    together = mixture.at(rows)
    for i, row in enumerate(rows):
        assert [part[i] for part in together] == [part[0] for part in mixture.at(np.array([row]))]


@given(rows=st.integers(0, 5000))
def test_counts_are_counted(rows):
    stages = [MixtureStage(0, (0.5, 0.3, 0.2)), MixtureStage(1000, (0.0, 0.1, 0.9))]
    mixture = Mixture(stages, limits=(None, 700, 2000))
    domain, _ = mixture.at(np.arange(rows))
    assert mixture.counts(rows).tolist() == np.bincount(domain, minlength=3).tolist()


def test_what_is_used_up_leaves_its_share_to_the_others_in_proportion():
    mixture = Mixture([MixtureStage(0, (0.5, 0.3, 0.2))], limits=(100, None, None))
    domain, index = mixture.at(np.arange(10_200))
    assert (domain == 0).sum() == 100
    assert index[domain == 0].tolist() == list(range(100))
    last = np.bincount(domain[200:], minlength=3) / 10_000
    np.testing.assert_allclose(last, [0, 0.6, 0.4], atol=0.002)
    assert mixture.num_rows is None


def test_a_mixture_of_limits_ends_after_all_of_them():
    assert Mixture([MixtureStage(0, (0.9, 0.1))], limits=(30, 50)).num_rows == 80


def test_an_epoch_of_each_domain_has_each_row_once():
    order = MixedOrder(mixture=Mixture([MixtureStage(0, (0.7, 0.3))]), num_rows=(50, 20), seed=3)
    rows = order.row_at(np.arange(400))
    for first, size in ((0, 50), (50, 20)):
        own = rows[(rows >= first) & (rows < first + size)]
        for epoch in range(len(own) // size):
            assert sorted(own[epoch * size : (epoch + 1) * size]) == list(
                range(first, first + size)
            )
        assert own[:size].tolist() != own[size : 2 * size].tolist()


def test_stages_begin_at_the_row_that_their_tokens_reach():
    config = MixtureConfig(
        weights={"web": 1}, stages=[StageConfig(from_tokens=1000, weights={"books": 1})]
    )
    mixture = config.build({"web": 1, "books": 1}, tokens_per_row=16)
    domain, _ = mixture.at(np.arange(200))
    assert domain.tolist() == [0] * 63 + [1] * 137  # 1000 tokens are 62.5 rows


def test_without_weights_shares_are_the_sources_or_natural():
    sizes = {"a": 300, "b": 100}
    build = MixtureConfig().build
    assert build(sizes, tokens_per_row=1).counts(1 << 16).tolist() == [
        49152,
        16384,
    ]
    given_weights = {"a": 1.0, "b": 4.0}
    weighted = build(sizes, tokens_per_row=1, source_weights=given_weights)
    np.testing.assert_allclose(weighted.counts(1000), [200, 800], atol=3)
    even = MixtureConfig(temperature=1e9).build(sizes, tokens_per_row=1)
    np.testing.assert_allclose(even.counts(1000), [500, 500], atol=3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": {"a": -1.0}}, "weight -1.0 of domain 'a' is no share"),
        ({"weights": {"c": 1.0}}, "gives a weight to 'c', and the text has the domains 'a', 'b'"),
        ({"weights": {"a": 0.0}}, "gives no domain a weight above 0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"max_epochs": 0.0}, "max_epochs=0.0 leaves no text"),
    ],
)
def test_what_is_no_mixture_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MixtureConfig(**fields).build({"a": 1, "b": 1}, tokens_per_row=1)


def test_a_weight_without_a_row_is_refused_also_of_a_later_stage():
    sizes = {"a": 5, "b": 0}
    assert MixtureConfig().build(sizes, tokens_per_row=1).stages[0].shares == (1.0, 0.0)
    stage = StageConfig(from_tokens=10, weights={"b": 1})
    for config in (MixtureConfig(weights={"a": 1, "b": 1}), MixtureConfig(stages=(stage,))):
        with pytest.raises(ValueError, match="a weight to 'b', with too little text to fill one"):
            config.build(sizes, tokens_per_row=1)


def test_a_weight_for_some_sources_only_is_refused():
    with pytest.raises(ValueError, match="'a' have a weight and 'b' have none"):
        MixtureConfig().build(
            {"a": 1, "b": 1},
            tokens_per_row=1,
            source_weights={"a": 1.0, "b": None},
        )


def test_domains_of_one_size_have_orders_of_their_own() -> None:
    mixture = Mixture([MixtureStage(0, (0.5, 0.5))])
    rows = MixedOrder(mixture=mixture, num_rows=(50, 50), seed=0).row_at(np.arange(100))
    first, second = rows[rows < 50], rows[rows >= 50] - 50
    assert first[:40].tolist() != second[:40].tolist()


def test_many_domains_that_are_used_up_take_no_memory():
    sizes = [100 + 7 * number for number in range(300)]
    shares = tuple(size / sum(sizes) for size in sizes)
    tracemalloc.start()
    mixture = Mixture([MixtureStage(0, shares)], limits=sizes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6  # where each of 300 spans held its pattern, there were 157 MB
    assert mixture.num_rows == sum(sizes)
    domain, index = mixture.at(np.arange(sum(sizes)))
    for number, size in enumerate(sizes):  # each row of each domain once
        assert index[domain == number].tolist() == list(range(size))
