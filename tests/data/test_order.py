"""The order of rows: a permutation of each epoch that depends on seed, size and position alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pile_lightning.data.order import RowOrder


@pytest.mark.parametrize("num_rows", [*range(1, 70), 255, 256, 257, 1000, 1999, 2000, 65_537])
def test_every_epoch_has_every_row_once(num_rows: int) -> None:
    rows = RowOrder(num_rows=num_rows, seed=3).row_at(np.arange(3 * num_rows))
    for epoch in rows.reshape(3, num_rows):
        assert np.array_equal(np.sort(epoch), np.arange(num_rows))


@settings(max_examples=25, deadline=None)
@given(
    num_rows=st.integers(1, 10**12),
    seed=st.integers(0, 2**70),
    positions=st.lists(st.integers(0, 10**15), min_size=1, max_size=8),
)
def test_a_row_depends_on_its_position_alone(
    num_rows: int, seed: int, positions: list[int]
) -> None:
    order = RowOrder(num_rows=num_rows, seed=seed)
    together = order.row_at(np.array(positions))
    alone = [int(order.row_at(np.array([position]))[0]) for position in positions]
    assert together.tolist() == alone
    assert all(0 <= row < num_rows for row in alone)


def test_the_order_stays_the_same_over_releases() -> None:
    # checkpoints hold a position in this order: these numbers must never change
    small = RowOrder(num_rows=10, seed=1).row_at(np.arange(10))
    assert small.tolist() == [8, 0, 7, 6, 2, 9, 5, 4, 3, 1]
    large = RowOrder(num_rows=10**9, seed=1).row_at(np.array([0, 10**9, 10**12]))
    assert large.tolist() == [559358873, 955147777, 258804415]


def test_seeds_and_epochs_differ() -> None:
    n = 1000
    orders = [RowOrder(num_rows=n, seed=seed).row_at(np.arange(2 * n)) for seed in range(4)]
    epochs = [epoch for order in orders for epoch in order.reshape(2, n)]
    for i, one in enumerate(epochs):
        for other in epochs[:i]:
            assert (one == other).sum() < 12  # 1 is expected where chance decides


@pytest.mark.parametrize("num_rows", [3, 4, 16, 100, 1000])
def test_each_place_gets_each_row_equally_often(num_rows: int) -> None:
    trials = 4000
    positions = np.arange(trials) * num_rows  # the first place of every epoch
    seen = np.bincount(RowOrder(num_rows=num_rows, seed=0).row_at(positions), minlength=num_rows)
    expected = trials / num_rows
    chi_square = ((seen - expected) ** 2 / expected).sum()
    # mean n - 1, standard deviation sqrt(2 (n - 1))
    assert abs(chi_square - (num_rows - 1)) < 4.5 * np.sqrt(2 * (num_rows - 1))


def test_neighbours_are_not_related() -> None:
    rows = RowOrder(num_rows=4096, seed=5).row_at(np.arange(4096)).astype(float)
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 0.06
    assert abs(np.corrcoef(rows, np.arange(4096))[0, 1]) < 0.06


def test_all_orders_of_three_rows_come_up() -> None:
    rows = RowOrder(num_rows=3, seed=0).row_at(np.arange(3 * 600)).reshape(-1, 3)
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 60


def test_no_rows() -> None:
    with pytest.raises(ValueError, match="num_rows=0: an order needs at least one row"):
        RowOrder(num_rows=0, seed=0)
