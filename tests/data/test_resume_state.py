"""What a checkpoint holds of the data, and what it is checked against."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from tests.data.conftest import maker
from tests.data.toy_runs import KINDS, MakeData, Toy, run, trainer

# Lightning's own code, against torch 2.13
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")


@pytest.fixture(params=KINDS)
def make_data(request: pytest.FixtureRequest, folder: Path, cache: Path) -> MakeData:
    kind, own = KINDS[request.param]
    return maker(kind, folder, cache, **own)


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
