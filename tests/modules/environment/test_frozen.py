"""A frozen member is scored and imitated, and nothing of it changes."""

import copy
import shutil
import warnings

import pytest
import torch
import yaml
from lightning import Trainer, seed_everything

from pile_lightning.modules import CausalLM, Distillation, Environment, Halving, MutualLearning
from pile_lightning.modules.environment.coupling import divergence
from pile_lightning.nn import DecoderConfig
from pile_lightning.optim import AdamWConfig
from tests.modules.environment.conftest import SEQ, VOCAB, ToyData, assert_equal, member
from tests.modules.environment.test_checkpoints import FromRow, SaveAt

IMITATES = [Distillation(teacher="teacher", students=("student",), weight=0.5)]


class Imitates(CausalLM):
    """Alone, with the loss that a student has."""

    teacher: CausalLM

    def loss_sum(self, batch):
        loss = super().loss_sum(batch)
        with torch.no_grad():
            other = self.teacher.logits(batch)
        return loss + 0.5 * divergence(self.logits(batch), other, batch)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of ours, of a model of another width that drops out, and the model."""
    folder = tmp_path_factory.mktemp("runs") / "big"
    seed_everything(7, verbose=False)
    model = CausalLM(
        DecoderConfig(d_model=48, num_layers=1, dropout=0.3),
        vocab_size=VOCAB,
        max_seq_len=2 * SEQ,
        optimizer=AdamWConfig(lr=0.02),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=folder,
    )
    with warnings.catch_warnings(action="ignore"):
        trainer.fit(model, ToyData())
    trainer.save_checkpoint(folder / "checkpoints/best.ckpt")
    config = {"model": {"class_path": "pile_lightning.CausalLM", "init_args": {}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder, model.eval()


def members_of(run, **more):
    return {"teacher": {"frozen": True, "weights": str(run[0]), **more}, "student": member()}


def test_a_student_of_a_frozen_teacher_is_one_that_imitates_alone(
    run, make_environment, make_trainer
):
    environment = make_environment(members_of(run), coupling=IMITATES)
    make_trainer().fit(environment, ToyData())
    # of another width, made for longer rows, with dropout: as the checkpoint says, and asleep
    assert_equal(run[1], environment.roster["teacher"].module)
    assert environment.roster["teacher"].module.max_seq_len == 2 * SEQ
    seed_everything(0, verbose=False)
    alone = Imitates(
        DecoderConfig(d_model=32, num_layers=1),
        vocab_size=VOCAB,
        max_seq_len=SEQ,
        optimizer=environment.roster["student"].module.optimizer_config,
    )
    alone.__dict__["teacher"] = run[1]
    alone.keeps_hidden = True
    make_trainer().fit(alone, ToyData())
    assert_equal(alone, environment.roster["student"].module)


def test_it_is_ranked_and_neither_led_by_nor_halved(run, make_environment, make_trainer):
    still = {"class_path": "pile_lightning.optim.AdamWConfig", "init_args": {"lr": 0.0}}
    members = members_of(run) | {"student": member(optimizer=still), "other": member(seed=1)}
    environment = make_environment(members, halving=Halving(at=[3], keep=0.5))
    trainer = make_trainer()
    trainer.fit(environment, ToyData())
    rows = {row["name"]: row for row in environment.ranking()}
    assert rows["student"]["stopped_step"] == 3
    assert rows["teacher"]["frozen"]
    assert rows["teacher"]["stopped_step"] is None
    assert environment.best is environment.roster["other"].module
    metrics = trainer.callback_metrics
    assert metrics["val/bits_per_byte"] == metrics["val/other/bits_per_byte"]
    # the score that it has alone
    [alone] = make_trainer().validate(run[1], ToyData(), verbose=False)
    assert rows["teacher"]["bits_per_byte"] == alone["val/bits_per_byte"]
    assert rows["teacher"]["loss"] == alone["val/loss"]
    assert metrics["train/members"] == 1


def test_resuming_and_loading_need_no_folder(run, make_environment, make_trainer, tmp_path):
    folder = tmp_path / "moved"
    shutil.copytree(run[0], folder)
    environment = make_environment(members_of([folder]), coupling=IMITATES)
    make_trainer(SaveAt(4, tmp_path / "saved.ckpt")).fit(environment, FromRow())
    shutil.rmtree(folder)
    again = Environment(**copy.deepcopy(dict(environment.hparams)))
    make_trainer().fit(again, FromRow(4), ckpt_path=tmp_path / "saved.ckpt", weights_only=True)
    assert_equal(environment, again)
    loaded = Environment.load_from_checkpoint(tmp_path / "saved.ckpt")
    assert_equal(run[1], loaded.roster["teacher"].module)
    own = Environment.split_checkpoint(torch.load(tmp_path / "saved.ckpt", weights_only=True))
    torch.save(own["teacher"], tmp_path / "own.ckpt")
    assert_equal(run[1], CausalLM.load_from_checkpoint(tmp_path / "own.ckpt"))
    # where no checkpoint brings them
    for begin in ("fit", "validate"):
        with pytest.raises(FileNotFoundError, match="moved' is neither the folder of a run"):
            getattr(make_trainer(), begin)(
                Environment(**copy.deepcopy(dict(environment.hparams))), ToyData()
            )


def test_a_member_begins_with_weights_and_trains_on(run, make_environment, make_trainer):
    still = {"class_path": "pile_lightning.optim.AdamWConfig", "init_args": {"lr": 0.0}}
    members = {
        "still": {"weights": str(run[0]), "init_args": {"optimizer": still}},
        "on": {"weights": str(run[0] / "checkpoints/best.ckpt")},
    }
    environment = make_environment(members)
    make_trainer(max_steps=2).fit(environment, ToyData())
    assert_equal(run[1], environment.roster["still"].module)
    on = environment.roster["on"].module
    assert on.optimizer_config == run[1].optimizer_config
    assert not torch.equal(on.network.embedding.weight, run[1].network.embedding.weight)


def test_a_sweep_begins_with_weights(run, make_environment, make_trainer):
    base = {"weights": str(run[0])}
    [completed] = Environment.complete_settings(base=base).values()
    for each in (base, completed):
        environment = make_environment(base=each, sweep={"optimizer.lr": [0.0, 0.01]})
        make_trainer(max_steps=2, max_epochs=1).fit(environment, ToyData())
        assert_equal(run[1], environment.roster["lr=0.0"].module)
        assert not torch.equal(
            environment.roster["lr=0.01"].module.network.embedding.weight,
            run[1].network.embedding.weight,
        )


def test_a_frozen_module_of_ones_own_is_a_frozen_member(run, make_environment, make_trainer):
    teacher = copy.deepcopy(run[1])
    teacher.freeze()
    members = {"teacher": teacher, "student": CausalLM(vocab_size=VOCAB, max_seq_len=SEQ)}
    environment = Environment(members, vocab_size=VOCAB, max_seq_len=SEQ, coupling=IMITATES)
    make_trainer(max_steps=2).fit(environment, ToyData())
    assert environment.roster["teacher"].spec.frozen
    assert_equal(run[1], environment.roster["teacher"].module)


@pytest.mark.parametrize("engine", [pytest.param("stacked", marks=pytest.mark.slow), "auto"])
def test_other_engines_leave_it_alone(engine, run, make_environment, make_trainer):
    alike = {"weights": str(run[0]), "init_args": {"network": {"d_model": 48, "num_layers": 1}}}
    members = members_of(run) | {"student": alike, "two": alike | {"seed": 1}}
    found = []
    for name in ("sequential", engine):
        environment = make_environment(copy.deepcopy(members), coupling=IMITATES, engine=name)
        make_trainer().fit(environment, ToyData())
        assert_equal(run[1], environment.roster["teacher"].module)
        found.append(environment.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-5)


def test_peers_learn_from_it_too(run, make_environment, make_trainer):
    mutual = [MutualLearning(members=("teacher", "student"), weight=0.5)]
    found = [
        make_environment(members_of(run), coupling=coupling) for coupling in (IMITATES, mutual)
    ]
    for environment in found:
        make_trainer(max_steps=2).fit(environment, ToyData())
    assert_equal(*(environment.roster["student"].module for environment in found))


MISTAKES = {
    "nothing trains": (
        {"student": {"frozen": True, "weights": "RUN"}},
        "all members .teacher, student. are frozen, and there is nothing to train",
    ),
    "no weights": ({"teacher": member() | {"frozen": True}}, "has nowhere its weights from"),
    "no truth": ({"teacher": {"frozen": "yes", "weights": "RUN"}}, "'yes' is neither true nor"),
    "a seed": (
        {"teacher": {"frozen": True, "weights": "RUN", "seed": 3}},
        "is frozen, and seed would say nothing of it",
    ),
    "no run": (
        {"teacher": {"frozen": True, "weights": "RUN/no"}},
        "neither the folder of a run with a checkpoint, nor a checkpoint, nor a folder of Hugging",
    ),
    "no path": ({"teacher": {"frozen": True, "weights": 3}}, "weights=3 is no path"),
    "another network": (
        {"teacher": {"weights": "RUN", "init_args": {"network": {"d_model": 32}}}},
        "'teacher': the weights in .* are of another network .*leave its class_path and network",
    ),
    "a frozen student": (
        {"student": {"frozen": True, "weights": "RUN"}, "teacher": member()},
        "Distillation has 'student' as a student, and it is frozen",
    ),
}


@pytest.mark.parametrize(("members", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_said(members, message, run, make_environment, make_trainer):
    members = {
        name: {
            key: value.replace("RUN", str(run[0])) if key == "weights" and value != 3 else value
            for key, value in spec.items()
        }
        for name, spec in (members_of(run) | members).items()
    }
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make_trainer().fit(make_environment(members, coupling=IMITATES), ToyData())


def test_another_vocabulary_is_said(run):
    with pytest.raises(ValueError, match=f"vocab_size={VOCAB}.*the tokenizer and the seq_len of"):
        Environment(members_of(run), vocab_size=VOCAB + 1, max_seq_len=SEQ)
