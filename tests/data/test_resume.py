"""A run that was stopped anywhere and resumed sees the rows of a run that was not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule

from pile_lightning.batch import TokenBatch
from tests.data.conftest import maker
from tests.data.toy_runs import KINDS, MakeData, SaveAt, Toy, run, trainer

# Lightning's own code, against torch 2.13
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")


@pytest.fixture(params=KINDS)
def make_data(request: pytest.FixtureRequest, folder: Path, cache: Path) -> MakeData:
    kind, own = KINDS[request.param]
    return maker(kind, folder, cache, **own)


@pytest.fixture
def uninterrupted(make_data: MakeData, tmp_path: Path) -> list[list[Any]]:
    return run(make_data(batch_size=4), tmp_path, max_steps=12)[0].steps


LAYOUTS = [
    (1, 1),
    (1, 2),
    (4, 2),
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in [(2, 2), (2, 1)]),
]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("before", "after"), LAYOUTS)
def test_resumed_after_the_end_of_fit(
    make_data: MakeData,
    tmp_path: Path,
    uninterrupted: list[list[Any]],
    num_workers: int,
    before: int,
    after: int,
) -> None:
    def part(steps: int, **settings: Any) -> list[list[Any]]:
        data = make_data(batch_size=4, num_workers=num_workers)
        toy, made = run(data, tmp_path, max_steps=steps, **settings)
        made.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return toy.steps

    steps = part(5, accumulate_grad_batches=before)
    steps += part(8, accumulate_grad_batches=after, ckpt_path=tmp_path / "5.ckpt")
    steps += part(12, accumulate_grad_batches=before, ckpt_path=tmp_path / "8.ckpt")
    assert steps == uninterrupted


@pytest.mark.parametrize("accumulated", [1, 2])
def test_resumed_from_a_save_after_each_step(
    make_data: MakeData, tmp_path: Path, uninterrupted: list[list[Any]], accumulated: int
) -> None:
    save = SaveAt("on_train_batch_end", tmp_path)
    run(make_data(batch_size=4), tmp_path, save, max_steps=6, accumulate_grad_batches=accumulated)
    for saved in (1, 4, 6):
        toy, _ = run(
            make_data(batch_size=4),
            tmp_path,
            max_steps=9,
            accumulate_grad_batches=2,
            ckpt_path=tmp_path / f"{saved}.ckpt",
        )
        assert toy.steps == uninterrupted[saved:9], saved


def test_resumed_from_a_save_after_validation(
    make_data: MakeData, tmp_path: Path, uninterrupted: list[list[Any]]
) -> None:
    settings: dict[str, Any] = {
        "accumulate_grad_batches": 2,
        "val_check_interval": 4,
        "check_val_every_n_epoch": None,
        "limit_val_batches": 1,
    }
    save = SaveAt("on_validation_end", tmp_path)
    toy, _ = run(make_data(batch_size=4), tmp_path, save, max_steps=6, **settings)
    assert toy.validated_at == [2, 4, 6]
    again = settings | {"accumulate_grad_batches": 4, "val_check_interval": 16}
    toy, _ = run(
        make_data(batch_size=4), tmp_path, max_steps=10, ckpt_path=tmp_path / "2.ckpt", **again
    )
    assert toy.steps == uninterrupted[2:10]
    assert toy.validated_at == [4, 8]  # every four steps of the whole run


@pytest.mark.parametrize("after", [1, 2, 4])
def test_resumed_from_a_save_inside_a_step(
    make_data: MakeData, tmp_path: Path, uninterrupted: list[list[Any]], after: int
) -> None:
    toy, data = Toy(), make_data(batch_size=4)
    toy.fail_at = 3
    made = trainer(tmp_path, max_steps=12, accumulate_grad_batches=4)
    with pytest.raises(RuntimeError, match="stopped in the middle"):
        made.fit(toy, data)
    made.save_checkpoint(tmp_path / "inside.ckpt")
    assert data.state_dict()["rows"] == 12
    resumed, _ = run(
        make_data(batch_size=4),
        tmp_path,
        max_steps=8,
        accumulate_grad_batches=after,
        ckpt_path=tmp_path / "inside.ckpt",
    )
    assert toy.steps + resumed.steps == uninterrupted[:8]


def test_resumed_with_another_batch_size(make_data: MakeData, tmp_path: Path) -> None:
    whole = run(make_data(batch_size=2), tmp_path, max_steps=12)[0].steps
    first, made = run(make_data(batch_size=4), tmp_path, max_steps=3)
    made.save_checkpoint(tmp_path / "a.ckpt")
    second, made = run(
        make_data(batch_size=2), tmp_path, max_steps=5, ckpt_path=tmp_path / "a.ckpt"
    )
    made.save_checkpoint(tmp_path / "b.ckpt")
    third, _ = run(make_data(batch_size=8), tmp_path, max_steps=6, ckpt_path=tmp_path / "b.ckpt")
    rows = [row for toy in (first, second, third) for step in toy.steps for row in step]
    assert sorted(rows) == sorted(row for step in whole for row in step)


def test_epochs_of_the_trainer_go_on_in_the_stream(
    make_data: MakeData, tmp_path: Path, uninterrupted: list[list[Any]]
) -> None:
    settings: dict[str, Any] = {"limit_train_batches": 6, "accumulate_grad_batches": 2}
    first, made = run(make_data(batch_size=4), tmp_path, max_steps=4, **settings)
    made.save_checkpoint(tmp_path / "mid_epoch.ckpt")
    second, _ = run(
        make_data(batch_size=4),
        tmp_path,
        max_steps=12,
        ckpt_path=tmp_path / "mid_epoch.ckpt",
        **settings,
    )
    assert first.steps + second.steps == uninterrupted


def test_one_trainer_fits_twice(
    make_data: MakeData, tmp_path: Path, uninterrupted: list[list[Any]]
) -> None:
    data, toy = make_data(batch_size=4), Toy()
    made = trainer(tmp_path, max_steps=5)
    made.fit(toy, data)
    made.fit_loop.epoch_loop.max_steps = 9
    made.fit(toy, data)
    assert toy.steps == uninterrupted[:9]


def test_a_module_with_two_optimizers(
    make_data: MakeData, tmp_path: Path, uninterrupted: list[list[Any]]
) -> None:
    class Two(Toy):
        automatic_optimization = False

        def training_step(self, batch: TokenBatch) -> None:  # type: ignore[override]
            super().training_step(batch)
            self.steps.append(sorted(self.pending))
            self.pending = []
            for optimizer in self.optimizers():
                optimizer.step()

        def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            LightningModule.optimizer_step(self, *args, **kwargs)

        def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # type: ignore[override]
            return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

    first, second, data = Two(), Two(), make_data(batch_size=4)
    made = trainer(tmp_path, max_steps=8)
    made.fit(first, data)
    made.save_checkpoint(tmp_path / "a.ckpt")
    assert (made.global_step, data.state_dict()["rows"]) == (8, 16)
    made = trainer(tmp_path, max_steps=14)
    made.fit(second, make_data(batch_size=4), ckpt_path=tmp_path / "a.ckpt")
    assert first.steps + second.steps == uninterrupted[:7]


def test_overfitting_repeats_the_same_batches(make_data: MakeData, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"overfit_batches": 3, "limit_val_batches": 1.0}
    steps = run(make_data(batch_size=4), tmp_path, max_steps=9, **settings)[0].steps
    assert steps[:3] == steps[3:6] == steps[6:]
    assert steps[0] != steps[1]


def test_a_quick_try_of_the_code(make_data: MakeData, tmp_path: Path) -> None:
    run(make_data(), tmp_path, fast_dev_run=True, accumulate_grad_batches=2)


def test_another_trainer_begins_anew(
    make_data: MakeData, tmp_path: Path, uninterrupted: list[list[Any]]
) -> None:
    data = make_data(batch_size=4)
    for _ in range(2):
        assert run(data, tmp_path, max_steps=3)[0].steps == uninterrupted[:3]
