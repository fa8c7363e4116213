"""The lowest point of a swept field, its interval, and what is not known at the border."""

import numpy as np
import pytest

from pile_lightning.analysis import find_optimum, is_geometric

RATES = [0.005, 0.01, 0.02, 0.04, 0.08]


def bowl(best, noise=0.0, num_seeds=1):
    x = np.log(np.array(RATES) / best)[:, None]
    own = np.random.default_rng(0).normal(size=(len(RATES), num_seeds)) * noise
    return 1.5 + 0.1 * x**2 + own


@pytest.mark.parametrize("best", [0.012, 0.02, 0.035])
def test_the_lowest_point_between_values_is_found(best):
    found = find_optimum(RATES, bowl(best), logarithmic=True)
    assert found.value == pytest.approx(best, rel=1e-6)
    assert found.border is None
    assert found.num_seeds == 1
    assert found.low in RATES
    assert found.high in RATES
    assert found.low < best < found.high


def test_seeds_give_an_interval_narrower_than_the_grid():
    found = find_optimum(RATES, bowl(0.02, noise=0.002, num_seeds=6), logarithmic=True)
    assert found.num_seeds == 6
    assert 0.015 < found.low < found.value < found.high < 0.027
    wider = find_optimum(RATES, bowl(0.02, noise=0.02, num_seeds=6), logarithmic=True)
    assert wider.high - wider.low > found.high - found.low


@pytest.mark.parametrize(("best", "border", "end"), [(1.0, "highest", -1), (1e-4, "lowest", 0)])
def test_nothing_is_made_up_beyond_the_border(best, border, end):
    found = find_optimum(RATES, bowl(best), logarithmic=True)
    assert found.border == border
    assert found.value == RATES[end]


def test_a_seed_that_is_missing_somewhere_counts_in_the_mean_alone():
    losses = bowl(0.02, num_seeds=2)
    losses[0, 1] = np.nan
    found = find_optimum(RATES, losses, logarithmic=True)
    assert found.value == pytest.approx(0.02)
    assert found.num_seeds == 1


def test_linear_fields_have_a_parabola_of_their_own():
    values = [1, 2, 3, 4]
    found = find_optimum(values, [[(v - 2.3) ** 2] for v in values], logarithmic=False)
    assert found.value == pytest.approx(2.3)
    assert not is_geometric(values)
    assert is_geometric(RATES)


def test_losses_of_other_values_are_refused():
    with pytest.raises(ValueError, match="give two values at least, and a row of losses for each"):
        find_optimum([0.01], [[1.0]], logarithmic=True)
