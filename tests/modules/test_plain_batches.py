"""A Trainer with a user's own loader: input_ids and labels are enough, and faults are named."""

import warnings

import numpy as np
import pytest
import torch
from lightning import Callback, LightningDataModule, Trainer, seed_everything
from torch.utils.data import DataLoader

from pile_lightning import CausalLM, DecoderConfig, Environment
from pile_lightning.callbacks import AverageWeights, BestCheckpoint, Report
from pile_lightning.optim import AdamWConfig
from tests.modules.rows import SEQ, VOCAB, make_rows

NETWORK = DecoderConfig(d_model=16, num_layers=1)


@pytest.fixture(autouse=True)
def quiet():
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")


class PlainRows(torch.utils.data.Dataset):
    """Sixteen rows of what a user would yield."""

    def __init__(self, *names, change=dict):
        rows = make_rows(16, ignored=False)
        self.rows = {name: rows[name] for name in names or ("input_ids", "labels")}
        self.change = change

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return self.change({name: value[index] for name, value in self.rows.items()})


def make(kind=CausalLM, **settings):
    seed_everything(0, verbose=False)
    return kind(NETWORK, vocab_size=VOCAB, max_seq_len=SEQ, optimizer=AdamWConfig(), **settings)


def trainer_for(folder, *callbacks, **settings):
    settings = {"max_steps": 4, "val_check_interval": 2, "log_every_n_steps": 1, **settings}
    return Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=any(isinstance(each, BestCheckpoint) for each in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **settings,
    )


def fit(folder, model, rows, *callbacks, **settings):
    trainer = trainer_for(folder, *callbacks, **settings)
    trainer.fit(model, DataLoader(rows, batch_size=4), DataLoader(rows, batch_size=4))
    return trainer


def test_input_ids_and_labels_are_enough(tmp_path):
    model = make()
    trainer = fit(tmp_path, model, PlainRows(), AverageWeights(0.9), Report())
    logged = set(trainer.callback_metrics)
    assert {"train/loss", "train/lr", "val/loss", "val/perplexity", "val_raw/loss"} <= logged
    assert not [name for name in logged if "bits_per_byte" in name]
    loader = DataLoader(PlainRows(), batch_size=4)
    assert "test/loss" in trainer.test(model, loader, verbose=False)[0]
    assert [p.shape for p in trainer.predict(model, loader)] == [(4, VOCAB)] * 4


def test_what_is_left_out_is_what_it_stands_for(tmp_path):
    every = make_rows(16, ignored=False)
    every["domain"] = torch.zeros(16, dtype=torch.long)
    rows = PlainRows(*every)
    rows.rows = every
    weights = []
    for data in (PlainRows(), rows):
        model = make()
        fit(tmp_path, model, data)
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_an_environment_ranks_by_loss_where_there_are_no_bytes(tmp_path):
    member = {"class_path": "CausalLM", "init_args": {"network": {"d_model": 16, "num_layers": 1}}}
    seed_everything(0, verbose=False)
    model = Environment(
        base=member, sweep={"optimizer.lr": [1e-5, 0.02]}, vocab_size=VOCAB, max_seq_len=SEQ
    )
    trainer = fit(tmp_path, model, PlainRows(), max_steps=8, val_check_interval=4)
    rows = model.ranking()
    assert [row["name"] for row in rows] == ["lr=0.02", "lr=1e-05"]
    assert model.roster.best().name == "lr=0.02"
    assert trainer.callback_metrics["val/loss"] == pytest.approx(rows[0]["loss"])
    assert "val/bits_per_byte" not in trainer.callback_metrics


def test_the_best_checkpoint_says_what_to_monitor_instead(tmp_path):
    with pytest.raises(ValueError, match=r"needs num_bytes .*set best_checkpoint.monitor: val/lo"):
        fit(tmp_path, make(), PlainRows(), BestCheckpoint())
    fit(tmp_path, make(), PlainRows(), BestCheckpoint("val/loss"))
    assert (tmp_path / "checkpoints/best.ckpt").exists()


def unshifted(row):
    return {"input_ids": row["input_ids"], "labels": row["input_ids"]}


FAULTS = {
    "a tuple": (lambda row: tuple(row.values()), TypeError, "a batch is a list"),
    "a tensor": (lambda row: row["input_ids"], TypeError, "a batch is a Tensor"),
    "no labels": (
        lambda row: {"input_ids": row["input_ids"], "attention_mask": row["labels"]},
        ValueError,
        "a batch has no labels, only input_ids, attention_mask",
    ),
    "nothing": (
        lambda row: {"text": row["labels"]},
        ValueError,
        "a batch has no input_ids and no labels, only text",
    ),
    "unequal": (
        lambda row: {**row, "labels": row["labels"][1:]},
        ValueError,
        r"input_ids \(4, 12\) and labels \(4, 11\)",
    ),
    "unshifted": (unshifted, ValueError, "labels of a batch are its input_ids, not shifted"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("does", ["fit", "validate", "test"])
def test_a_wrong_batch_is_one_message_with_the_remedy(tmp_path, fault, does):
    change, kind, message = FAULTS[fault]
    loader = DataLoader(PlainRows(change=change), batch_size=4)
    loaders = [loader] * 2 if does == "fit" else [loader]
    with pytest.raises(kind, match=message) as caught:
        getattr(trainer_for(tmp_path), does)(make(), *loaders)
    assert '{"input_ids": ids[:-1], "labels": ids[1:]}' in str(caught.value)


def test_an_environment_checks_its_batches_too(tmp_path):
    member = {"class_path": "CausalLM", "init_args": {"network": {"d_model": 16, "num_layers": 1}}}
    model = Environment({"one": member}, vocab_size=VOCAB, max_seq_len=SEQ)
    with pytest.raises(ValueError, match="not shifted"):
        fit(tmp_path, model, PlainRows(change=unshifted))


def test_a_text_of_one_token_is_not_taken_for_unshifted(tmp_path):
    rows = PlainRows()
    rows.rows = {name: torch.full_like(value, 3) for name, value in rows.rows.items()}
    fit(tmp_path, make(), rows)


class LogsInSteps(CausalLM):
    def training_step(self, batch, batch_idx):
        self.log("train/lr", 7.0)
        self.log("train/loss", 8.0)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("val/loss", 9.0, batch_size=4)


def test_what_a_user_logs_in_a_step_stands(tmp_path):
    logged = fit(tmp_path, make(LogsInSteps), PlainRows()).callback_metrics
    assert (logged["train/lr"], logged["train/loss"], logged["val/loss"]) == (7.0, 8.0, 9.0)
    assert logged["val/perplexity"] > 1


class LogsAtEnd(CausalLM):
    def on_validation_epoch_end(self):
        self.log("val/loss", 9.0)


class LogsAfterBatch(CausalLM):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.log("train/lr", 9.0)


@pytest.mark.parametrize(
    ("kind", "name", "where"),
    [(LogsAtEnd, "val/loss", "validation"), (LogsAfterBatch, "train/lr", "training_step")],
)
def test_a_name_that_is_taken_in_a_hook_is_refused_not_averaged(tmp_path, kind, name, where):
    with pytest.raises(ValueError, match=f"logs '{name}', which was logged .*{where}"):
        fit(tmp_path, make(kind), PlainRows())


class LogsUnderOtherNames(CausalLM):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.log("train/mine", 1.0)

    def on_validation_epoch_end(self):
        self.log("val/mine", 2.0)


def test_other_names_are_free_in_every_hook(tmp_path):
    logged = fit(tmp_path, make(LogsUnderOtherNames), PlainRows()).callback_metrics
    assert (logged["train/mine"], logged["val/mine"]) == (1.0, 2.0)


class LogsEpochs(CausalLM):
    def on_train_epoch_end(self):
        self.log("train/loss", 7.0)


def test_an_epochs_own_name_does_not_end_the_log_of_steps(tmp_path):
    losses = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            losses.append(float(trainer.callback_metrics.get("train/loss", 0.0)))

    # epochs of four steps: the last batch of each is logged just before the epoch ends
    fit(tmp_path, make(LogsEpochs), PlainRows(), Watch(), max_steps=8, max_epochs=2)
    assert losses[4] == 7.0
    assert 7.0 not in losses[5:]
    assert len(set(losses[5:])) == 3


def test_sizes_may_be_numpys_but_no_others():
    sizes = {"vocab_size": np.int64(VOCAB), "max_seq_len": np.int64(SEQ)}
    assert CausalLM(NETWORK, **sizes).vocab_size == VOCAB
    for wrong in (None, 0, "31", 31.0):
        with pytest.raises(TypeError, match="attribute vocab_size of the data module"):
            CausalLM(NETWORK, vocab_size=wrong, max_seq_len=SEQ)


class Untouched(Callback):
    """A callback of a user logs as in any module."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("train/own", 3.0)


class PlainModule(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(PlainRows(), batch_size=4)

    val_dataloader = train_dataloader


def test_a_data_module_of_a_user_needs_nothing_else(tmp_path):
    trainer = trainer_for(tmp_path, Untouched())
    trainer.fit(make(), PlainModule())
    assert trainer.callback_metrics["train/own"] == 3.0
    assert trainer.callback_metrics["val/loss"] > 0
