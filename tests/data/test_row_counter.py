"""What is counted as delivered is what the loader gives, whoever asks and when."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pile_lightning.data import MixtureConfig, StageConfig, StreamedText, TextData, row_counter
from pile_lightning.data.row_counter import RowCounter

from .conftest import maker

STAGE = StageConfig(from_tokens=16 * 100, weights={"code": 1})
MIXED = MixtureConfig(weights={"prose": 3, "code": 1}, stages=(STAGE,))


@pytest.fixture(params=["natural", "mixed", "streamed"])
def data(request: pytest.FixtureRequest, folder: Path, cache: Path) -> TextData | StreamedText:
    streamed = request.param == "streamed"
    kind = StreamedText if streamed else TextData
    settings: dict[str, Any] = {} if request.param == "natural" else {"mixture": MIXED}
    settings |= {"num_lanes": 16} if streamed else {}
    made: TextData | StreamedText = maker(kind, folder, cache, batch_size=16)(**settings)
    return made


def test_delivered_is_what_the_loader_gives(data: TextData | StreamedText) -> None:
    num_batches = 140  # more than an epoch of the prepared rows
    given_tokens = np.zeros(2, np.int64)
    for batch in islice(data.train_dataloader(), num_batches):
        given_tokens += np.bincount(batch["domain"].numpy(), minlength=2) * 16
    delivered = data.delivered(16 * num_batches)
    assert list(delivered) == ["prose", "code"]
    assert [tokens for tokens, _ in delivered.values()] == given_tokens.tolist()
    epochs = [of[1] for of in delivered.values()]
    if isinstance(data, StreamedText):
        assert epochs == [None, None]
    else:
        rows = data.training_rows.rows_by_domain
        assert epochs == pytest.approx((given_tokens / 16 / rows).tolist())
        assert max(epochs) > 1


def test_the_weights_are_those_that_were_given(
    data: TextData | StreamedText, request: pytest.FixtureRequest
) -> None:
    natural = "natural" in request.node.name
    assert data.mixture_weights() == (None if natural else {"prose": 0.75, "code": 0.25})


def test_a_stream_of_which_nothing_was_said_has_no_weights(folder: Path, cache: Path) -> None:
    assert maker(StreamedText, folder, cache)().mixture_weights() is None


@given(asked=st.lists(st.integers(0, 3000), min_size=1, max_size=8))
def test_counts_do_not_hang_on_what_was_asked_before(
    counted: tuple[RowCounter, np.ndarray[Any, Any]], asked: list[int]
) -> None:
    counter, domains = counted
    for num_rows in asked:
        expected = np.bincount(domains[:num_rows], minlength=2)
        assert counter.counts(num_rows).tolist() == expected.tolist()


@pytest.fixture(scope="module")
def counted(folder: Path, cache: Path) -> tuple[RowCounter, np.ndarray[Any, Any]]:
    """A counter and the domain of each row that it counts."""
    data: TextData = maker(TextData, folder, cache)()
    rows, order = data.training_rows, data._order()
    domains = rows.domain_of(order(np.arange(3000)))
    return RowCounter(rows=rows, order=order), domains


def test_going_on_costs_the_new_rows_only(
    make_data: Callable[..., TextData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_counter, "_ROWS_AT_ONCE", 10)
    data = make_data()
    rows = data.training_rows
    asked: list[int] = []

    def order(positions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        asked.extend(positions.tolist())
        return positions % rows.num_rows

    counter = RowCounter(rows=rows, order=order)
    counter.counts(25)
    counter.counts(47)
    assert asked == list(range(47))
    asked.clear()
    counter.counts(1000 * rows.num_rows + 3)
    assert asked == [1000 * rows.num_rows + i for i in range(3)]
