import math

import pytest

from pile_lightning.optim import CosineConfig, LinearConfig, WarmupStableDecayConfig, cosine

CONFIGS = [CosineConfig(floor=0.1), LinearConfig(floor=0.1), WarmupStableDecayConfig(floor=0.1)]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_schedule_rises_to_one_and_falls_to_its_floor(config):
    factor = config.build(total=1000)
    values = [factor(step) for step in range(1001)]
    assert 0 < values[0] < 0.1
    assert max(values) == pytest.approx(1.0)
    assert values[-1] == pytest.approx(0.1)
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert all(a >= b - 1e-12 for a, b in zip(values[peak:], values[peak + 1 :], strict=False))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_schedule_past_its_end_stays_at_the_floor(config):
    assert config.build(total=10)(10_000) == pytest.approx(0.1)


def test_a_share_of_the_run_equals_the_number_of_steps():
    by_share = LinearConfig(warmup=0.1).build(total=200)
    by_steps = LinearConfig(warmup=20).build(total=200)
    assert [by_share(s) for s in range(200)] == [by_steps(s) for s in range(200)]


def test_cosine_is_half_way_in_the_middle():
    assert cosine(50, warmup=0, total=100, floor=0.0) == pytest.approx(0.5)
    assert cosine(25, warmup=0, total=100, floor=0.0) == pytest.approx(
        0.5 * (1 + math.cos(math.pi / 4))
    )


def test_stable_stretch_is_constant():
    factor = WarmupStableDecayConfig(warmup=10, decay=20).build(total=100)
    assert {factor(step) for step in range(10, 81)} == {1.0}


def test_impossible_schedules_are_refused():
    with pytest.raises(ValueError, match=r"warmup=-1 is neither a share"):
        LinearConfig(warmup=-1)
    with pytest.raises(ValueError, match=r"floor=2 is a factor"):
        CosineConfig(floor=2)
    with pytest.raises(ValueError, match=r"warmup of 90 steps and decay of 20 steps do not fit"):
        WarmupStableDecayConfig(warmup=90, decay=20).build(total=100)
