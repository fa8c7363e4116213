"""A published law is found in points that are drawn from it, and spends budgets as it should."""

import numpy as np
import pytest

from pile_lightning.analysis import TokenLaw, cost_between, fit_token_law

CHINCHILLA = TokenLaw(
    floor=1.69, scale=406.4, exponent=0.34, token_scale=410.7, token_exponent=0.28
)
"""Hoffmann et al. 2022, equation 10."""
NUMBERS = ("floor", "scale", "exponent", "token_scale", "token_exponent")


def grid(num_sizes=7, num_counts=6):
    sizes, tokens = np.geomspace(5e7, 1e10, num_sizes), np.geomspace(2e9, 4e11, num_counts)
    return [each.ravel() for each in np.meshgrid(sizes, tokens)]


def noisy(n, d, sigma, seed=0):
    return CHINCHILLA(n, d) * np.exp(np.random.default_rng(seed).normal(size=n.size) * sigma)


def test_the_published_law_is_found_in_its_points():
    n, d = grid(4, 4)
    law = fit_token_law(n, d, CHINCHILLA(n, d)).law
    for name in NUMBERS:
        assert getattr(law, name) == pytest.approx(getattr(CHINCHILLA, name), rel=1e-3)


def test_it_lies_within_the_intervals_where_there_is_noise():
    n, d = grid()
    inside = dict.fromkeys(NUMBERS, 0)
    for seed in range(3):
        fit = fit_token_law(n, d, noisy(n, d, 0.003, seed))
        assert fit.law.exponent == pytest.approx(0.34, abs=0.02)
        assert fit.law.token_exponent == pytest.approx(0.28, abs=0.03)
        assert fit.law.floor == pytest.approx(1.69, abs=0.06)
        for name in NUMBERS:
            low, high = fit.interval(name)
            inside[name] += low <= getattr(CHINCHILLA, name) <= high
    assert sum(inside.values()) >= 11  # 95 % of many; of 15, below 11 hardly ever


def test_the_costliest_is_predicted_from_the_others():
    n, d = grid(5, 4)
    loss, last = noisy(n, d, 0.002), (n * d).argmax()
    others = np.arange(n.size) != last
    fit = fit_token_law(n[others], d[others], loss[others])
    predicted, low, high = fit.predict(n[last], d[last])
    assert low <= predicted <= high
    assert predicted == pytest.approx(float(CHINCHILLA(n[last], d[last])), rel=0.01)


def test_one_that_fails_moves_the_law_little():
    n, d = grid(5, 4)
    loss = CHINCHILLA(n, d)
    loss[7] *= 1.3
    law = fit_token_law(n, d, loss).law
    assert float(law(7e10, 1.4e12)) == pytest.approx(float(CHINCHILLA(7e10, 1.4e12)), rel=0.01)


@pytest.mark.parametrize("flops", [1e19, 5.76e23])
def test_a_budget_is_spent_as_the_closed_form_says(flops):
    a, b = CHINCHILLA.exponent, CHINCHILLA.token_exponent
    ratio = a * CHINCHILLA.scale / (b * CHINCHILLA.token_scale)
    best = ratio ** (1 / (a + b)) * (flops / 6) ** (b / (a + b))  # their equation 4
    size, tokens, loss = CHINCHILLA.best(flops, lambda n: 6 * n, around=1e9)
    assert size == pytest.approx(best, rel=0.01)
    assert 6 * size * tokens == pytest.approx(flops)
    assert loss == pytest.approx(float(CHINCHILLA(size, tokens)))


def test_an_allocation_lies_within_its_intervals_and_costs_its_budget():
    n, d = grid(4, 4)
    fit = fit_token_law(n, d, noisy(n, d, 0.002))
    found = fit.spend(1e22, cost_between(n, 6 * n), around=1e9)
    for value, low, high in (found.size, found.tokens, found.loss):
        assert low < value < high
    assert 6 * found.size[0] * found.tokens[0] == pytest.approx(1e22)


MISSING = {
    "sizes": (grid(2, 6), r"A and alpha need 3 sizes \(there are 2\): train more sizes$"),
    "counts": (grid(6, 2), r"B and beta need 3 counts of tokens \(there are 2\): train a run of"),
    "both": (grid(2, 2), r"need 3 sizes .*; B and beta need 3 counts"),
    "a count that was cut short": (
        (np.tile([1e8, 1e9, 1e10], 3), np.repeat([1e9, 1.001e9, 1e10], 3)),
        r"need 3 counts of tokens \(there are 2\)",
    ),
    "pairs": (
        ([1e8, 1e9, 1e10, 1e8], [1e9, 1e10, 1e9, 1e11]),
        r"five numbers need 6 pairs of a size and a count \(there are 4\)",
    ),
    "what is apart": (
        (np.geomspace(1e8, 1e10, 8), 20 * np.geomspace(1e8, 1e10, 8)),
        "size and tokens rise together.*train one size on several counts",
    ),
}


@pytest.mark.parametrize("missing", MISSING)
def test_points_that_leave_a_number_open_are_refused_with_what_is_missing(missing):
    (n, d), message = MISSING[missing]
    with pytest.raises(ValueError, match=message):
        fit_token_law(n, d, CHINCHILLA(n, d))


@pytest.mark.parametrize("bad", [0.0, float("nan"), -1.0])
def test_what_has_no_logarithm_is_refused(bad):
    n, d = grid(3, 3)
    loss = CHINCHILLA(n, d)
    loss[4] = bad
    with pytest.raises(ValueError, match="finite and above 0"):
        fit_token_law(n, d, loss)
    with pytest.raises(ValueError, match="9 sizes, 9 counts of tokens and 8 losses"):
        fit_token_law(n, d, loss[:8])
