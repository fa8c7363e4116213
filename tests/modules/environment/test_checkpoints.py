"""One checkpoint goes on as the whole, and holds an ordinary one of each member."""

import copy

import pytest
import torch
from lightning import Callback

from pile_lightning.modules import CausalLM, Environment, Halving
from tests.modules.environment.conftest import UNLIKE, ToyData, assert_equal, member


class FromRow(ToyData):
    """Goes on with the batch after those of the finished steps."""

    def __init__(self, first=0):
        super().__init__()
        self.first = first

    def train_dataloader(self):
        self.batches, whole = self.batches[self.first :], self.batches
        loader = super().train_dataloader()
        self.batches = whole
        return loader


class SaveAt(Callback):
    """Save after a step, before it is validated."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.fixture
def saved(make_environment, make_trainer, tmp_path):
    """A run of six steps of which the fourth was saved, and the checkpoint."""
    still = {"class_path": "pile_lightning.optim.AdamWConfig", "init_args": {"lr": 0.0}}
    members = UNLIKE | {"worst": member(optimizer=still)}
    environment = make_environment(members, halving=Halving(at=[3], keep=0.8))
    make_trainer(SaveAt(4, tmp_path / "saved.ckpt")).fit(environment, FromRow())
    return environment, tmp_path / "saved.ckpt"


def test_a_resumed_environment_ends_as_if_it_had_not_stopped(saved, make_trainer):
    environment, path = saved
    again = Environment(**copy.deepcopy(dict(environment.hparams)))
    trainer = make_trainer()
    trainer.fit(again, FromRow(4), ckpt_path=path, weights_only=True)
    assert trainer.global_step == 6
    assert_equal(environment, again)
    for one, two in zip(environment.roster, again.roster, strict=True):
        assert vars(one.fate) == pytest.approx(vars(two.fate), nan_ok=True)
    assert again.roster["worst"].fate.stopped_step == 3


def test_it_loads_with_what_its_members_were(saved):
    environment, path = saved
    loaded = Environment.load_from_checkpoint(path)
    assert [each.name for each in loaded.roster] == [*UNLIKE, "worst"]
    assert loaded.roster["worst"].fate.stopped_step == 3
    assert loaded.hparams == environment.hparams


def test_a_member_goes_on_alone_from_its_own_checkpoint(saved, make_trainer, tmp_path):
    environment, path = saved
    checkpoint = torch.load(path, weights_only=True)
    own = Environment.split_checkpoint(checkpoint)
    assert own.keys() == {*UNLIKE, "worst"}
    for name in ("plain", "wide"):  # without dropout, which an ordinary run does not resume
        torch.save(own[name], tmp_path / "own.ckpt")
        model = CausalLM.load_from_checkpoint(tmp_path / "own.ckpt")
        start = {key: value.clone() for key, value in own[name]["state_dict"].items()}
        assert all(torch.equal(model.state_dict()[key], value) for key, value in start.items())
        clip = UNLIKE[name]["gradient_clip_val"] or 1.0
        make_trainer(gradient_clip_val=clip).fit(
            model, FromRow(4), ckpt_path=tmp_path / "own.ckpt", weights_only=True
        )
        assert_equal(model, environment.roster[name].module)


def test_a_checkpoint_of_one_model_has_no_members():
    with pytest.raises(ValueError, match="it is an ordinary one already"):
        Environment.split_checkpoint({"state_dict": {}})


def test_loading_imports_nothing(saved, tmp_path):
    _, path = saved
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["members"]["plain"]["class_path"] = "wsgiref.Model"
    torch.save(checkpoint, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="'wsgiref' is not imported; import it before loading"):
        Environment.load_from_checkpoint(tmp_path / "foreign.ckpt")


def test_a_members_own_metrics_stand_under_its_name(make_environment, make_trainer):
    talks = member(kind="tests.modules.environment.members.Talks")
    trainer = make_trainer(max_steps=2)
    trainer.fit(make_environment({"a": talks, "b": talks}), ToyData())
    assert trainer.callback_metrics["train/a/twice"] == 2
    assert trainer.callback_metrics["b/mood"] == 1


def test_an_environment_of_stopped_members_says_so(make_environment, make_trainer):
    environment = make_environment({"one": member()})
    environment.roster["one"].fate.stopped_step = 3
    with pytest.raises(ValueError, match="all members of this environment were stopped"):
        make_trainer().fit(environment, ToyData())
