"""A run that was stopped anywhere and resumed sees the rows of a run that was not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor

from pile_lightning.batch import TokenBatch
from pile_lightning.data import (
    MixtureConfig,
    ShortRowsConfig,
    StageConfig,
    StreamedText,
    TextData,
    TextModule,
)
from tests.data.conftest import maker

MakeData = Callable[..., TextModule]

# Lightning's own code, against torch 2.13
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")


STAGED = MixtureConfig(
    weights={"prose": 3, "code": 1}, stages=[StageConfig(from_tokens=300, weights={"code": 1})]
)
# until the seventh step of four rows of 16
SHORT = ShortRowsConfig(seq_len=4, until_tokens=390)
STREAMED = {"num_lanes": 16, "window_bytes": 300}
# each way of packing in both paths
KINDS = {
    "prepared": (TextData, {}),
    "mixed": (TextData, {"mixture": STAGED, "packing": "best_fit"}),
    "short": (TextData, {"short_rows": SHORT}),
    "streamed": (StreamedText, STREAMED),
    "streamed-mixed": (StreamedText, STREAMED | {"mixture": STAGED, "packing": "best_fit"}),
    "streamed-short": (StreamedText, STREAMED | {"short_rows": SHORT}),
}


@pytest.fixture(params=KINDS)
def make_data(request: pytest.FixtureRequest, folder: Path, cache: Path) -> MakeData:
    kind, own = KINDS[request.param]
    return maker(kind, folder, cache, **own)


class Toy(LightningModule):
    """Notes which rows every optimizer step was taken on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps: list[list[Any]] = []
        self.pending: list[Any] = []
        self.batches = 0
        self.fail_at: int | None = None
        self.validated_at: list[int] = []

    def training_step(self, batch: TokenBatch) -> Tensor:
        self.batches += 1
        if self.fail_at == self.global_step and self.batches == 4:
            raise RuntimeError("stopped in the middle")
        self.pending += [tuple(row) for row in batch["input_ids"].tolist()]
        return self.weight * 1.0

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.steps.append(sorted(self.pending))
        self.pending, self.batches = [], 0

    def validation_step(self, batch: TokenBatch) -> None:
        assert not self.pending, "validation inside an optimizer step"
        if not self.validated_at or self.validated_at[-1] != self.global_step:
            self.validated_at.append(self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Callback):
    """Saves in a hook after every step, as ``ModelCheckpoint`` does, without a state of its own."""

    def __init__(self, hook: str, folder: Path) -> None:
        def save(trainer: Trainer, *_: Any) -> None:
            path = folder / f"{trainer.global_step}.ckpt"
            if not path.exists():
                trainer.save_checkpoint(path)

        setattr(self, hook, save)


def trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    defaults = {
        "max_epochs": -1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "default_root_dir": folder,
    }
    return Trainer(callbacks=list(callbacks), **(defaults | settings))


def run(data: TextModule, root: Path, *callbacks: Callback, **settings: Any) -> tuple[Toy, Trainer]:
    ckpt_path = settings.pop("ckpt_path", None)
    toy = Toy()
    made = trainer(root, *callbacks, **settings)
    made.fit(toy, data, ckpt_path=ckpt_path)
    return toy, made


@pytest.fixture
def uninterrupted(make_data: MakeData, tmp_path: Path) -> list[list[Any]]:
    return run(make_data(batch_size=4), tmp_path, max_steps=12)[0].steps


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (1, 2), (2, 1), (4, 2)])
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


def test_state_survives_a_run_that_does_not_train(make_data: MakeData) -> None:
    data = make_data(batch_size=4)
    state = data.state_dict() | {"rows": 40, "accumulated": 3}
    data.load_state_dict(state)
    again = data.state_dict()
    assert again.keys() == state.keys()
    assert all(
        again[key] is state[key] or again[key] == state[key] for key in {*state} - {"cursors"}
    )


def test_a_checkpoint_loads_with_weights_only(make_data: MakeData, tmp_path: Path) -> None:
    _, made = run(make_data(batch_size=4), tmp_path, max_steps=2)
    made.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert checkpoint[type(made.datamodule).__name__]["rows"] == 8


def test_a_checkpoint_of_other_data_names_what_differs(make_data: MakeData, tmp_path: Path) -> None:
    _, made = run(make_data(batch_size=4), tmp_path, max_steps=2)
    made.save_checkpoint(tmp_path / "a.ckpt")
    other = make_data(batch_size=4, seed=7, seq_len=8)
    with pytest.raises(ValueError, match=r"seq_len: 16 in the checkpoint, 8 now\n  seed: 0 in the"):
        run(other, tmp_path, max_steps=4, ckpt_path=tmp_path / "a.ckpt")


def test_a_checkpoint_of_other_data_can_be_validated(make_data: MakeData, tmp_path: Path) -> None:
    _, made = run(make_data(batch_size=4), tmp_path, max_steps=2)
    made.save_checkpoint(tmp_path / "a.ckpt")
    other = make_data(seq_len=8)
    trainer(tmp_path, limit_val_batches=1).validate(
        Toy(), other, ckpt_path=tmp_path / "a.ckpt", verbose=False
    )


def test_a_checkpoint_without_a_position_warns(make_data: MakeData, tmp_path: Path) -> None:
    _, made = run(make_data(batch_size=4), tmp_path, max_steps=2)
    made.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    del checkpoint[type(made.datamodule).__name__]
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.warns(UserWarning, match="holds no position"):
        run(make_data(batch_size=4), tmp_path, max_steps=4, ckpt_path=tmp_path / "a.ckpt")


def test_a_batch_that_cannot_be_shared(make_data: MakeData, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size=2 .* 1 data-parallel ranks x accum"):
        run(make_data(batch_size=2), tmp_path, max_steps=1, accumulate_grad_batches=4)


@pytest.mark.parametrize("setting", ["val_check_interval", "limit_train_batches"])
def test_an_interval_inside_an_accumulated_step(
    make_data: MakeData, tmp_path: Path, setting: str
) -> None:
    settings: dict[str, Any] = {setting: 5, "check_val_every_n_epoch": None}
    with pytest.raises(ValueError, match=rf"{setting}=5 .* choose a multiple, for example 6"):
        run(make_data(), tmp_path, max_steps=1, accumulate_grad_batches=2, **settings)


def test_a_callback_that_changes_the_batch(make_data: MakeData, tmp_path: Path) -> None:
    scheduler = GradientAccumulationScheduler({0: 1, 1: 2})
    with pytest.raises(ValueError, match="GradientAccumulationScheduler changes how many rows"):
        run(make_data(), tmp_path, scheduler, max_steps=1)
