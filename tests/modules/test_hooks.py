"""Lightning's hooks belong to the sub-class: ours are lost by none of them."""

import warnings
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, Trainer, seed_everything

from pile_lightning import CausalLM, DecoderConfig, Environment
from pile_lightning.modules.hooks import HOOKS, check_supers, overridden
from pile_lightning.optim import AdamWConfig, OptimizerConfig
from tests.modules.rows import SEQ, VOCAB, ToyData, make_rows, take

NETWORK = DecoderConfig(d_model=16, num_layers=1)
SILENT = [
    name for name in HOOKS if name.startswith("on_") and not name.endswith("batch_transfer")
] + ["setup", "teardown", "prepare_data"]


@dataclass(frozen=True, kw_only=True)
class SGDConfig(OptimizerConfig):
    def build(self, network):
        return torch.optim.SGD(network.parameters(), lr=0.1)


@pytest.fixture(autouse=True)
def quiet():
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*overridden `LightningModule.on_.*")


def make(kind=CausalLM, **settings):
    seed_everything(0, verbose=False)
    settings = {"optimizer": AdamWConfig(lr=1e-2), **settings}
    return kind(NETWORK, vocab_size=VOCAB, max_seq_len=SEQ, **settings)


def fit(folder, model, batches, **settings):
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": folder,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "max_steps": 2,
            **settings,
        }
    )
    trainer.fit(model, ToyData(batches))
    return trainer


def pieces(count, rows=8, ignored=True):
    whole = make_rows(rows, ignored=ignored)
    return [take(whole, part) for part in torch.arange(rows).chunk(count)]


def step_size(folder, model, batches, **settings):
    model.configure_model()
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    trainer = fit(folder, model, batches, max_steps=1, limit_val_batches=0, **settings)
    after = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    return after - before, trainer.callback_metrics


def test_every_hook_may_be_overridden_without_super(tmp_path):
    called = set()

    def silent(name):
        return lambda self, *args, **settings: called.add(name)

    kind = type("Silent", (CausalLM,), {name: silent(name) for name in SILENT})
    runs = []
    for each in (CausalLM, kind):
        model = make(each)
        trainer = fit(tmp_path, model, pieces(4), accumulate_grad_batches=2, gradient_clip_val=0.5)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        scores = trainer.validate(model, ToyData(pieces(2)), verbose=False)
        logged = {n: v for n, v in trainer.callback_metrics.items() if not n.startswith("val")}
        runs.append((model.state_dict(), logged, scores))
    assert called >= {"on_before_optimizer_step", "setup", "on_train_start", "on_save_checkpoint"}
    (weights, logged, scores), (weights_of, logged_of, scores_of) = runs
    assert all(torch.equal(weights[name], weights_of[name]) for name in weights)
    assert scores == scores_of
    assert logged == logged_of


class Mean(CausalLM):
    def training_step(self, batch, batch_idx):
        logits = self(batch).flatten(0, 1)
        return F.cross_entropy(logits, batch["labels"].flatten(), ignore_index=-100)


class Returns(Mean):
    def training_step(self, batch, batch_idx):
        return {"loss": super().training_step(batch, batch_idx), "more": 1}


class Twice(CausalLM):
    """Adds a term of its own to ours."""

    def training_step(self, batch, batch_idx):
        self.seen = super().training_step(batch, batch_idx)
        return self.seen + Mean.training_step(self, batch, batch_idx)


@pytest.mark.parametrize("kind", [Mean, Returns, Twice])
def test_a_mean_loss_of_ones_own_gives_one_step_however_it_is_cut(tmp_path, kind):
    moves, losses = zip(
        *(
            step_size(
                tmp_path,
                make(kind, optimizer=SGDConfig()),
                pieces(count, ignored=False),
                accumulate_grad_batches=count,
            )
            for count in (1, 4)
        ),
        strict=True,
    )
    torch.testing.assert_close(moves[0], moves[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses[0]["train/loss"], losses[1]["train/loss"])
    assert 3 < float(losses[0]["train/loss"]) < 4


def test_a_loss_that_is_logged_by_oneself_is_left_alone(tmp_path):
    class Logs(Mean):
        def training_step(self, batch, batch_idx):
            self.log("train/loss", 7.0)
            return super().training_step(batch, batch_idx)

    _, metrics = step_size(tmp_path, make(Logs), pieces(2), accumulate_grad_batches=2)
    assert metrics["train/loss"] == 7.0
    assert "train/lr" in metrics


def test_scores_that_are_logged_by_oneself_are_left_alone(tmp_path):
    class Scores(CausalLM):
        def validation_step(self, batch, batch_idx):
            self.log("val/loss", 7.0, batch_size=1)

    model = make(Scores)
    trainer = fit(tmp_path, model, pieces(2))
    scores = trainer.validate(model, ToyData(pieces(2)), verbose=False)
    assert scores == [{"val/loss": 7.0}]
    assert "test/loss" in trainer.test(model, ToyData(pieces(2)), verbose=False)[0]


def test_callbacks_of_a_module_are_added_to_ours_or_refused(tmp_path):
    class Bare(CausalLM):
        def configure_callbacks(self):
            return [Callback()]

    class Both(CausalLM):
        def configure_callbacks(self):
            return [*super().configure_callbacks(), Callback()]

    with pytest.raises(TypeError, match=r"Bare.configure_callbacks .* super\(\).configure_callb"):
        make(Bare)
    model = make(Both)
    assert "train/loss" in fit(tmp_path, model, pieces(2)).callback_metrics


def test_a_module_of_ones_own_may_have_no_network_of_ours():
    class Empty(CausalLM):
        def configure_model(self):
            pass

    with pytest.raises(TypeError, match=r"Empty.configure_model made no self.network; set it"):
        make(Empty)(make_rows(1))


def spec(module):
    return Environment({"one": module}, vocab_size=VOCAB, max_seq_len=SEQ)


class Epochs(CausalLM):
    def on_train_epoch_end(self):
        pass


def test_a_member_has_no_hook_that_is_never_called():
    with pytest.raises(ValueError, match="'one': Epochs overrides on_train_epoch_end, which"):
        spec(make(Epochs))
    with pytest.raises(ValueError, match="Mean overrides training_step.*loss_sum"):
        spec(make(Mean))


CALLED = []


class Own(CausalLM):
    def setup(self, stage):
        CALLED.append("setup")

    def on_train_start(self):
        CALLED.append("start")

    def on_before_optimizer_step(self, optimizer):
        CALLED.append("step")

    def on_train_batch_end(self, outputs, batch, batch_idx):
        CALLED.append("batch")

    def on_validation_epoch_end(self):
        CALLED.append("scored")


def test_a_member_calls_its_own_hooks_without_super(tmp_path):
    runs = []
    for kind in (CausalLM, Own):
        environment = spec(make(kind))
        trainer = fit(tmp_path, environment, pieces(4), accumulate_grad_batches=2, max_steps=1)
        trainer.validate(environment, ToyData(pieces(2)), verbose=False)
        runs.append((environment.state_dict(), dict(trainer.callback_metrics)))
    assert set(CALLED) == {"setup", "start", "step", "batch", "scored"}
    (weights, metrics), (weights_of, metrics_of) = runs
    assert all(torch.equal(weights[name], weights_of[name]) for name in weights)
    assert metrics == metrics_of


@pytest.mark.parametrize("hook", [*overridden(Environment)])
def test_an_environment_keeps_what_it_does_in_hooks(hook):
    if hook == "predict_step":
        return
    kind = type("Mine", (Environment,), {hook: lambda self, *args: None})
    with pytest.raises(TypeError, match=rf"Mine.{hook} leaves out .*; call super\(\).{hook}\(\)"):
        kind({"one": make()}, vocab_size=VOCAB, max_seq_len=SEQ)


def test_a_mixin_is_looked_into_and_a_super_is_found():
    class Base:
        def setup(self, stage):
            pass

    class Mixin:
        def setup(self, stage):
            pass

    class Calls(Base):
        def setup(self, stage):
            super().setup(stage)

    check_supers(Calls, base=Base, hooks=["setup"])
    with pytest.raises(TypeError, match=r"Mixin.setup leaves out what Base does in it"):
        check_supers(type("Mixed", (Mixin, Calls), {}), base=Base, hooks=["setup"])
