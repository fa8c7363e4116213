"""A sweep is read as curves over each field: what is compared is alike in all else."""

import numpy as np
import pytest

from pile_lightning.callbacks import sweep_curves, sweep_table
from pile_lightning.callbacks.sweep_picture import draw_sweep

RATES, WIDTHS, SEEDS = (0.005, 0.01, 0.02, 0.04), (64, 96), (0, 1, 2)


def row(swept, loss, *, seed=0, stopped=None):
    return {"swept": swept, "bits_per_byte": loss, "seed": seed, "stopped_step": stopped}


def loss_of(lr, width, seed=0):
    best = 0.012 * 64 / width
    return 1.5 + 0.1 * np.log(lr / best) ** 2 - width / 1000 + seed / 1e4


@pytest.fixture
def grid():
    return [
        row({"optimizer.lr": lr, "network.d_model": width, "seed": seed}, loss, seed=seed)
        for lr in RATES
        for width in WIDTHS
        for seed in SEEDS
        for loss in [loss_of(lr, width, seed)]
    ]


def test_each_field_has_a_line_for_each_setting_of_the_others(grid):
    curves = sweep_curves(grid)
    named = [(curve.field, curve.others) for curve in curves]
    assert named[:2] == [("optimizer.lr", "d_model=96"), ("optimizer.lr", "d_model=64")]
    assert set(named[2:]) == {("network.d_model", f"lr={lr}") for lr in RATES}
    rates = curves[1]
    assert rates.values == RATES
    assert rates.logarithmic
    assert rates.losses.shape == (4, 3)
    assert rates.losses[2, 1] == loss_of(0.02, 64, 1)
    assert rates.optimum.value == pytest.approx(0.012)
    assert rates.optimum.num_seeds == 3
    assert curves[0].optimum.value == pytest.approx(0.008)
    assert all(curve.optimum.border == "highest" for curve in curves[2:4])
    assert not curves[2].logarithmic


def test_those_that_were_stopped_are_left_out(grid):
    stopped = [each | {"stopped_step": 5} if each["seed"] else each for each in grid]
    assert all(curve.optimum.num_seeds == 1 for curve in sweep_curves(stopped))
    assert sweep_curves([each | {"stopped_step": 5} for each in grid]) == []
    assert sweep_curves([each | {"bits_per_byte": float("nan")} for each in grid]) == []


def test_values_are_compared_on_the_same_seeds():
    # the second seed is a good one, and the worse value was stopped with it
    losses = {(0.01, 0): 1.50, (0.02, 0): 1.49, (0.01, 1): 1.40, (0.02, 1): 1.39}
    rows = [
        row({"optimizer.lr": lr}, loss, seed=seed, stopped=5 if (lr, seed) == (0.02, 1) else None)
        for (lr, seed), loss in losses.items()
    ]
    [curve] = sweep_curves(rows)
    assert curve.losses.tolist() == [[1.50], [1.49]]
    assert curve.optimum.value == 0.02
    apart = [each for each in rows if (each["swept"]["optimizer.lr"] == 0.01) == each["seed"]]
    assert np.isnan(sweep_curves(apart)[0].losses).sum() == 2


def test_fields_that_change_together_are_no_curve():
    sizes = [{"network.d_model": 8 * n, "network.num_layers": n} for n in (1, 2, 3)]
    assert sweep_curves([row(size, 1.5) for size in sizes]) == []
    assert sweep_table([]) == []


def test_words_are_among_the_others_and_members_without_a_sweep_are_none():
    rows = [
        row({"optimizer.lr": lr, "network.feed_forward.activation": word}, loss_of(lr, 64))
        for lr in RATES
        for word in ("gelu", "relu2")
    ]
    curves = sweep_curves([*rows, row({}, 1.0)])
    assert [(c.field, c.others) for c in curves] == [
        ("optimizer.lr", "activation=gelu"),
        ("optimizer.lr", "activation=relu2"),
    ]


def test_the_table_is_short_and_says_what_its_intervals_are(grid):
    lines = sweep_table(sweep_curves(grid))
    assert lines[1].split()[:3] == ["lr", "d_model=96", "0.008"]
    assert lines[-1] == "  Of several seeds, they are a 95 % interval, the seeds drawn anew."
    many = [
        row({"optimizer.lr": lr, "network.d_model": width}, loss_of(lr, width))
        for lr in RATES
        for width in range(64, 64 + 8 * 15, 8)
    ]
    lines = sweep_table(sweep_curves(many))
    assert len(lines) == 1 + 10 + 4 + 2
    assert lines[-2:] == [
        "  And 5 lines of higher losses.",
        "  Of one seed, low and high are the neighbours in the grid.",
    ]


def test_a_picture_is_drawn(grid, tmp_path):
    draw_sweep(tmp_path / "sweep.png", sweep_curves(grid))
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
