import importlib.util
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

from pile_lightning.loggers import LogPictures, make_logger

NAMES = [
    "tensorboard",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("wandb", "mlflow", "trackio")),
]

pytestmark = pytest.mark.filterwarnings("default")  # the trackers' own, and Lightning's


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.save_hyperparameters({"width": 1, "network": {"d_model": 8}})

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, name, **settings):
    logger = make_logger(name, folder, **settings)
    trainer = Trainer(
        max_steps=4,
        accelerator="cpu",
        logger=logger,
        log_every_n_steps=1,
        callbacks=[LogPictures()],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Line(), DataLoader(torch.ones(4, 1)))
    if name == "wandb":
        logger.experiment.finish()  # as the end of a process does
    return logger


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_writes_into_the_runs_folder_and_goes_on_with_its_run(
    name, tmp_path, monkeypatch
):
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        pytest.skip(f"{name} is not installed: pip install 'pile-lightning[{name}]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    Figure().savefig(folder / "curves.png")
    fit(folder, name)
    assert any(path.is_file() for path in (folder / name).rglob("*"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # nothing elsewhere
    if name != "tensorboard":
        first = (folder / name / "run-id.txt").read_text()
        fit(folder, name, resumed=True)
        assert (folder / name / "run-id.txt").read_text() == first
        fit(folder, name, resumed=False)
        assert (folder / name / "run-id.txt").read_text() != first


def test_tensorboard_has_metrics_settings_and_pictures(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    Figure().savefig(tmp_path / "curves.png")
    fit(tmp_path, "tensorboard")
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [each.step for each in events.Scalars("train/loss")] == [0, 1, 2, 3]
    assert "curves" in events.Tags()["images"]
    assert "d_model" in (tmp_path / "tensorboard/hparams.yaml").read_text()


def test_a_missing_package_names_its_extra(monkeypatch, tmp_path):
    monkeypatch.setattr("pile_lightning.loggers.by_name.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs the package 'wandb'.*pile-lightning\[wandb\]"):
        make_logger("wandb", tmp_path)


def test_a_folder_of_the_trackers_name_is_no_package(monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()
    spec = importlib.util.spec_from_file_location("wandb", None)
    monkeypatch.setattr("pile_lightning.loggers.by_name.find_spec", lambda name: spec)
    with pytest.raises(ImportError, match="needs the package 'wandb'"):
        make_logger("wandb", tmp_path)


def test_a_tracker_that_there_is_not_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match="choose one of tensorboard, wandb, mlflow, trackio"):
        make_logger("tensorbord", Path(tmp_path))
