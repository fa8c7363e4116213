"""A plain Trainer with our modules reads checkpoints as data."""

import os

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.plugins.io import AsyncCheckpointIO, CheckpointIO, TorchCheckpointIO
from lightning.pytorch.strategies import FSDPStrategy, SingleDeviceStrategy

from pile_lightning import CausalLM, Environment
from pile_lightning.checkpoint import AtomicCheckpointIO
from pile_lightning.checkpoint.trainers import DataCheckpointIO, read_as_data
from tests.checkpoint.test_data_only import CONFIG, Evil, addresses, ran, saved, server

__all__ = ["ran", "server"]


def rows():
    one = torch.arange(4)
    batch = {"input_ids": one, "labels": one.roll(-1), "position_ids": one, "document_ids": one * 0}
    batch |= {"num_bytes": torch.tensor(4), "domain": torch.tensor(0)}
    return torch.utils.data.DataLoader([batch] * 2, batch_size=2)


def trainer(folder, **settings):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(default_root_dir=folder, accelerator="cpu", **{**quiet, **settings})


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "plugins",
    [None, [AsyncCheckpointIO()], [AtomicCheckpointIO()]],
    ids=["none", "background", "atomic"],
)
def test_no_address_runs_code_in_a_plain_trainer(tmp_path, ran, server, plugins):
    saved(tmp_path / "last.ckpt", evil=Evil(ran))
    model = CausalLM(CONFIG, vocab_size=8, max_seq_len=4)
    for address in [str(tmp_path / "last.ckpt"), *addresses(tmp_path, server)[:2]]:
        for more in ({}, {"weights_only": False}):
            with pytest.raises(ValueError, match=r"last.ckpt .*take another checkpoint"):
                trainer(tmp_path, plugins=plugins).validate(
                    model, rows(), ckpt_path=address, verbose=False, **more
                )
    assert not ran.exists()


def test_an_environment_and_its_members_do_the_same(tmp_path):
    member = {"class_path": "CausalLM", "init_args": {"network": {"d_model": 16}}}
    environment = Environment({"a": member}, vocab_size=8, max_seq_len=4)
    plain = trainer(tmp_path)
    assert type(plain.strategy.checkpoint_io) is TorchCheckpointIO
    environment.trainer = plain
    assert isinstance(plain.strategy.checkpoint_io, DataCheckpointIO)
    assert environment.trainer is plain


@pytest.mark.filterwarnings("ignore")
def test_a_plain_trainer_goes_on_from_what_it_saved(tmp_path):
    for number, steps in enumerate((1, 2)):
        model = CausalLM(CONFIG, vocab_size=8, max_seq_len=4)
        plain = trainer(tmp_path, max_steps=steps, enable_checkpointing=False, limit_val_batches=0)
        path = tmp_path / f"{number - 1}.ckpt"
        plain.fit(model, rows(), rows(), ckpt_path=str(path) if path.exists() else None)
        plain.save_checkpoint(tmp_path / f"{number}.ckpt")
        assert plain.global_step == steps


def test_a_users_own_reader_stays():
    class Mine(TorchCheckpointIO):
        pass

    for files in (Mine(), AtomicCheckpointIO()):
        strategy = SingleDeviceStrategy(device=torch.device("cpu"), checkpoint_io=files)
        read_as_data(strategy)
        assert strategy.checkpoint_io is files
    assert issubclass(DataCheckpointIO, CheckpointIO)


def test_fsdp_which_has_a_reader_of_its_own_looks_first(tmp_path, ran, monkeypatch):
    saved(tmp_path / "last.ckpt", evil=Evil(ran))
    asked = []
    monkeypatch.setattr(
        FSDPStrategy, "load_checkpoint", lambda self, path, weights_only: asked.append(weights_only)
    )
    strategy = FSDPStrategy(parallel_devices=[torch.device("cpu")])
    for _ in range(2):
        read_as_data(strategy)
    with pytest.raises(ValueError, match=r"holds \w+.system"):
        strategy.load_checkpoint(tmp_path / "last.ckpt")
    saved(tmp_path / "good.ckpt")
    strategy.load_checkpoint(os.fspath(tmp_path / "good.ckpt"), weights_only=False)
    assert asked == [True]
    assert not ran.exists()
