import copy

import pytest
from lightning import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader

from pile_lightning.modules import CausalLM
from pile_lightning.nn import DecoderConfig
from tests.modules.rows import SEQ, VOCAB, Batches, make_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*"),
]


class Rows(LightningDataModule):
    """Goes on with the batch after those of the finished steps."""

    domains = ("even", "odd")

    def __init__(self, first=0):
        super().__init__()
        self.first = first

    def train_dataloader(self):
        batches = [make_rows(2, seed=step) for step in range(self.first, 9)]
        return DataLoader(Batches(batches), batch_size=None)

    def val_dataloader(self):
        return DataLoader(Batches([make_rows(2, seed=9)]), batch_size=None)


class Watch(Callback):
    """Notes the steps of validations, and saves after one, before its validation."""

    def __init__(self, save_at=None, path=None):
        self.save_at, self.path, self.scored = save_at, path, {}

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.save_at:
            trainer.save_checkpoint(self.path)

    def on_validation_end(self, trainer, module):
        assert trainer.global_step not in self.scored
        self.scored[trainer.global_step] = trainer.callback_metrics["val/bits_per_byte"].item()


def fit(model, watch, *, first=0, max_steps=6, **more):
    Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[watch],
        val_check_interval=3,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, Rows(first), **more)


@pytest.fixture
def model():
    network = DecoderConfig(d_model=16, num_layers=1)
    return CausalLM(network, vocab_size=VOCAB, max_seq_len=SEQ)


@pytest.mark.parametrize(("step", "left"), [(2, [3, 6]), (3, [3, 6]), (4, [6])])
def test_a_run_that_goes_on_validates_what_was_not_validated(model, tmp_path, step, left):
    whole = Watch(step, tmp_path / "saved.ckpt")
    fit(model, whole)
    again = Watch()
    other = CausalLM(**copy.deepcopy(dict(model.hparams)))
    fit(other, again, first=step, ckpt_path=tmp_path / "saved.ckpt", weights_only=True)
    assert again.scored == {at: whole.scored[at] for at in left}


def test_a_run_that_was_validated_last_is_not_validated_twice(model, tmp_path):
    class AtTheEnd(Watch):
        def on_validation_end(self, trainer, module):
            super().on_validation_end(trainer, module)
            if trainer.global_step == 6:
                trainer.save_checkpoint(tmp_path / "saved.ckpt")

    fit(model, AtTheEnd())
    again = Watch()
    other = CausalLM(**copy.deepcopy(dict(model.hparams)))
    path = tmp_path / "saved.ckpt"
    fit(other, again, first=6, max_steps=9, ckpt_path=path, weights_only=True)
    assert list(again.scored) == [9]
