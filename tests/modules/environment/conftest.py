"""Tiny members, rows of numbers, and a trainer, for environments to run on."""

import copy
import warnings
from functools import partial

import pytest
import torch
from lightning import LightningDataModule, Trainer, seed_everything
from torch.utils.data import DataLoader

from pile_lightning.callbacks import SkipNonFinite
from pile_lightning.modules import CausalLM, Environment
from tests.modules.rows import SEQ, VOCAB, Batches, make_rows


@pytest.fixture(autouse=True)
def quiet():
    for message in (
        ".*does not have many workers.*",
        ".*treespec, LeafSpec.*",
        ".*Checkpoint directory .* exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def make_batches(count, rows=4):
    return [make_rows(rows, seed) for seed in range(count)]


class ToyData(LightningDataModule):
    domains = ("even", "odd")

    def __init__(self, count=24):
        super().__init__()
        self.batches = make_batches(count)

    def train_dataloader(self):
        # its own generator, as the package's loaders have: validation draws nothing from training
        return DataLoader(Batches(self.batches), batch_size=None, generator=torch.Generator())

    def val_dataloader(self):
        return DataLoader(Batches(self.batches[:2]), batch_size=None, generator=torch.Generator())


def member(width=32, *, seed=0, optimizer=None, schedule=None, kind="CausalLM", clip=None, **more):
    """Return the plain data of a member."""
    path = "pile_lightning.optim."
    return {
        "class_path": kind,
        "init_args": {
            "network": {"d_model": width, "num_layers": 1, **more.pop("network", {})},
            "optimizer": optimizer
            or {"class_path": path + "AdamWConfig", "init_args": {"lr": 0.01}},
            "schedule": schedule or {"class_path": path + "LinearConfig"},
            **more,
        },
        "seed": seed,
        "gradient_clip_val": clip,
    }


MUON = {"class_path": "pile_lightning.optim.MuonConfig", "init_args": {"lr": 0.02}}
COSINE = {"class_path": "pile_lightning.optim.CosineConfig", "init_args": {"warmup": 3}}

UNLIKE = {
    "plain": member(),
    "reseeded": member(seed=1),
    "wide": member(48, seed=2, optimizer=MUON, clip=0.1),
    "dropping": member(seed=3, schedule=COSINE, network={"dropout": 0.2}),
}


def make_trainer_in(folder, *callbacks, **settings):
    """Make a trainer of six steps that validates after every third."""
    return Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": folder,
            "callbacks": [SkipNonFinite(), *callbacks],
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "max_steps": 6,
            "val_check_interval": 3 * settings.get("accumulate_grad_batches", 1),
            "check_val_every_n_epoch": None,
            "log_every_n_steps": 2,
            "gradient_clip_val": 1.0,
            **settings,
        }
    )


@pytest.fixture
def make_trainer(tmp_path):
    """Make a trainer of six steps that validates after every third."""
    return partial(make_trainer_in, tmp_path)


@pytest.fixture
def make_environment():
    def make(members=None, **settings):
        return Environment(copy.deepcopy(members), vocab_size=VOCAB, max_seq_len=SEQ, **settings)

    return make


@pytest.fixture
def train_alone(make_trainer):
    """Train a member's model as one alone, and return it."""

    def train(spec, **settings):
        seed_everything(spec["seed"], verbose=False)
        if spec["gradient_clip_val"] is not None:
            settings["gradient_clip_val"] = spec["gradient_clip_val"]
        environment = Environment({"alone": spec}, vocab_size=VOCAB, max_seq_len=SEQ)
        kind = environment.roster["alone"].spec
        model = kind.build(vocab_size=VOCAB, max_seq_len=SEQ)
        assert isinstance(model, CausalLM)
        seed_everything(spec["seed"], verbose=False)
        trainer = make_trainer(**settings)
        trainer.fit(model, ToyData())
        return model, trainer

    return train


def assert_equal(one, two):
    one, two = one.state_dict(), two.state_dict()
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(two[name], value), name
