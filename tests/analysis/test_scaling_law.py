"""A law that is known is found again, and says what a size that was left out reaches."""

import numpy as np
import pytest

from pile_lightning.analysis import ScalingLaw, fit_scaling_law

SIZES = np.geomspace(2e4, 2e6, 6)


@pytest.mark.parametrize(
    "law",
    [
        ScalingLaw(floor=1.0, scale=30.0, exponent=0.35),
        ScalingLaw(floor=0.4, scale=8.0, exponent=0.15),
        ScalingLaw(floor=1.7, scale=400.0, exponent=0.6),
    ],
    ids=["middle", "flat", "steep"],
)
def test_a_known_law_is_found(law):
    found = fit_scaling_law(SIZES, law(SIZES)).law
    assert found.floor == pytest.approx(law.floor, rel=0.01)
    assert found.scale == pytest.approx(law.scale, rel=0.01)
    assert found.exponent == pytest.approx(law.exponent, rel=0.01)


def noisy(law, sizes, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(size=len(sizes)) * sigma
    return law(sizes) * np.exp(noise)


def test_what_is_left_out_is_predicted():
    law = ScalingLaw(floor=1.0, scale=30.0, exponent=0.35)
    for seed in range(5):
        losses = noisy(law, SIZES, 0.002, seed)
        predicted, low, high = fit_scaling_law(SIZES[:-1], losses[:-1]).predict(SIZES[-1:])
        assert predicted[0] == pytest.approx(law(SIZES[-1]), rel=0.02)
        assert low[0] <= predicted[0] <= high[0]


def test_intervals_hold_the_law_about_as_often_as_they_say():
    law = ScalingLaw(floor=1.0, scale=30.0, exponent=0.35)
    sizes = np.repeat(SIZES, 3)
    inside = []
    for seed in range(10):
        fit = fit_scaling_law(sizes, noisy(law, sizes, 0.003, seed))
        low, high = fit.interval("exponent")
        inside.append(low <= law.exponent <= high)
    assert np.mean(inside) >= 0.7  # 95 % of many; of 10, below 7 hardly ever


def test_one_that_fails_moves_the_law_little():
    law = ScalingLaw(floor=1.0, scale=30.0, exponent=0.35)
    sizes = np.repeat(SIZES, 3)
    losses = law(sizes)
    losses[7] *= 1.3
    found = fit_scaling_law(sizes, losses).law
    assert found(2e7) == pytest.approx(law(2e7), rel=0.01)


def test_a_law_without_a_floor_and_losses_that_do_not_fall_are_no_failure():
    pure = fit_scaling_law(SIZES, 20 * SIZES**-0.3).law
    assert pure.floor < 0.05
    assert pure(2e7) == pytest.approx(20 * 2e7**-0.3, rel=0.01)
    level = fit_scaling_law(SIZES, np.full(6, 1.5)).law
    assert level(2e7) == pytest.approx(1.5, rel=0.01)


def test_too_few_sizes_are_refused():
    with pytest.raises(ValueError, match=r"fitted to 3 sizes.*need 4 at least: train more sizes"):
        fit_scaling_law([1e4, 1e5, 1e6, 1e6], [3.0, 2.0, 1.5, 1.6])


@pytest.mark.parametrize("bad", [0.0, float("nan"), -1.0])
def test_what_has_no_logarithm_is_refused(bad):
    with pytest.raises(ValueError, match="finite and above 0"):
        fit_scaling_law([1e4, 1e5, 1e6, 1e7], [3.0, 2.0, 1.5, bad])
