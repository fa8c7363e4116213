"""Loaders: one sequence of rows for any number of ranks and workers, and no token scored twice."""

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.data import ShortRowsConfig, TextData

MakeData = Callable[..., TextData]

pytestmark = [
    # workers are forked; newer Pythons warn of that where threads run, and torch runs some
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes"),
]


def on_rank(data: TextData, rank: int, num_ranks: int, accumulated: int = 1) -> TextData:
    counts = SimpleNamespace(processed=0)
    progress = SimpleNamespace(total=counts, current=counts)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        distributed_sampler_kwargs={"num_replicas": num_ranks, "rank": rank},
        accumulate_grad_batches=accumulated,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
        overfit_batches=0.0,
    )
    return data


# short in half of the steps that are looked at
SHORT = ShortRowsConfig(parts=4, until_tokens=50 * 8 * 16)
PACKINGS: dict[str, dict[str, Any]] = {
    "split": {},
    "best_fit": {"packing": "best_fit"},
    "short": {"short_rows": SHORT},
}


def global_rows(
    make_data: MakeData,
    num_steps: int,
    num_ranks: int,
    accumulated: int,
    num_workers: int,
    **settings: Any,
) -> list[torch.Tensor]:
    """Return the rows of each optimizer step, over all ranks and accumulated batches."""
    ranks = []
    for rank in range(num_ranks):
        data = make_data(num_workers=num_workers, **settings)
        data = on_rank(data, rank, num_ranks, accumulated)
        ranks.append(iter(data.train_dataloader()))
    steps = []
    for _ in range(num_steps):
        parts = [next(rank)["input_ids"] for _ in range(accumulated) for rank in ranks]
        steps.append(torch.cat(parts))
    for rank in ranks:
        rank.close()  # type: ignore[attr-defined]
    return steps


@pytest.mark.parametrize(
    ("num_ranks", "accumulated", "num_workers"),
    [(1, 1, 1), (1, 1, 3), (1, 4, 0), (2, 1, 0), (2, 1, 2), (2, 2, 0), (4, 1, 0), (4, 2, 0)],
)
@pytest.mark.parametrize("packing", PACKINGS)
def test_every_world_sees_the_same_rows(
    make_data: MakeData, packing: str, num_ranks: int, accumulated: int, num_workers: int
) -> None:
    own = PACKINGS[packing]
    one = global_rows(make_data, 100, num_ranks=1, accumulated=1, num_workers=0, **own)
    many = global_rows(make_data, 100, num_ranks, accumulated, num_workers, **own)
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))


@pytest.mark.parametrize("packing", ["split", "best_fit"])
def test_two_epochs_hold_every_row_twice(make_data: MakeData, packing: str) -> None:
    data = make_data(batch_size=7, packing=packing)
    num_rows = data.training_rows.num_rows
    seen: dict[tuple[int, ...], int] = {}
    loader = iter(data.train_dataloader())
    rows = [
        tuple(row.tolist())
        for _ in range(-(-2 * num_rows // 7))
        for row in next(loader)["input_ids"]
    ]
    for row in rows[: 2 * num_rows]:
        seen[row] = seen.get(row, 0) + 1
    batch = data.training_rows.batch(torch.arange(num_rows).numpy())
    expected: dict[tuple[int, ...], int] = {}
    for row in map(tuple, batch["input_ids"].tolist()):
        expected[row] = expected.get(row, 0) + 2
    assert seen == expected
    assert rows[:num_rows] != rows[num_rows : 2 * num_rows]


@pytest.mark.parametrize(
    ("num_ranks", "size", "stride", "num_workers"),
    [(1, 3, None, 0), (1, 64, 5, 0), (2, 6, 1, 0), (4, 4, None, 0), (4, 32, 15, 0), (2, 6, 5, 2)],
)
def test_validation_scores_every_token_once(
    make_data: MakeData, num_ranks: int, size: int, stride: int | None, num_workers: int
) -> None:
    tokens, num_bytes, lengths, shapes = 0, 0, set(), set()
    for rank in range(num_ranks):
        data = make_data(val_batch_size=size, val_stride=stride, num_workers=num_workers)
        loader = on_rank(data, rank, num_ranks).val_dataloader()
        assert not isinstance(loader, list)
        batches: list[Any] = list(loader)
        assert len(batches) == len(loader)
        lengths.add(len(loader))
        for batch in batches:
            shapes.add(tuple(batch["input_ids"].shape))
            tokens += int((batch["labels"] != IGNORE_INDEX).sum())
            num_bytes += int(batch["num_bytes"].sum())
    texts = list(data.held_out_texts())
    assert tokens == sum(len(text.encode()) + 1 for text in texts)
    assert num_bytes == sum(len(text.encode()) for text in texts)
    assert len(lengths) == 1
    assert shapes == {(size // num_ranks, 16)}


def test_validation_batches_are_as_large_as_training_batches(make_data: MakeData) -> None:
    data = on_rank(make_data(batch_size=12), 0, 2, accumulated=3)
    assert next(iter(data.val_dataloader()))["input_ids"].shape == (2, 16)
    assert next(iter(data.train_dataloader()))["input_ids"].shape == (2, 16)


def test_loading_draws_nothing_from_the_generator_of_the_run(make_data: MakeData) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    next(iter(make_data(num_workers=1).train_dataloader()))
    list(make_data().val_dataloader())
    assert torch.equal(torch.rand(3), expected)


def test_workers_leave_the_environment_as_it_was(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make_data(tokenizer="bpe:300", seed=99).tokenizer.encode_batch(["threads", "are running"])
    for value in (None, "true"):
        monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
        if value:
            monkeypatch.setenv("TOKENIZERS_PARALLELISM", value)
        next(iter(make_data(num_workers=1).train_dataloader()))
        assert os.environ.get("TOKENIZERS_PARALLELISM") == value
    assert "forked" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["batch_size", "val_batch_size"])
def test_a_batch_that_the_ranks_do_not_divide(make_data: MakeData, name: str) -> None:
    data = on_rank(make_data(**{name: 6}), 0, 4)
    with pytest.raises(
        ValueError, match=rf"data.{name}=6 rows .* 4 data-parallel ranks.*: choose a multiple"
    ):
        data.val_dataloader() if name == "val_batch_size" else data.train_dataloader()


def test_batches_of_workers_take_no_shared_memory(make_data: MakeData) -> None:
    """A small ``/dev/shm`` loses batches, and the loader waits for them forever."""
    batch = next(iter(make_data(num_workers=2).train_dataloader()))
    alone = next(iter(make_data().train_dataloader()))
    assert batch.keys() == alone.keys()
    for name, value in alone.items():
        other = batch[name]  # type: ignore[literal-required]
        assert (value is None) == (other is None)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other)
            assert not other.is_shared()
