"""The layout of Lightning's loop progress that we rely on; a release that changes it fails here."""

import pytest
import torch
from lightning import LightningModule, Trainer
from torch.utils.data import IterableDataset

from pile_lightning.loop_state import LoopState, finished_batches, is_within_step


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.ones(2)


class Scored(IterableDataset):
    def __iter__(self):
        yield from [torch.ones(2)] * 2


class Tiny(LightningModule):
    def __init__(self, hook="", at=0, path=None):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.seen, self.left, self.path = [], at, path
        if hook:
            setattr(self, hook, self._save_and_leave)

    def _save_and_leave(self, *_):
        self.left -= 1
        if self.left == 0:
            self.trainer.save_checkpoint(self.path)
            raise InterruptedError

    def training_step(self, batch, batch_idx):
        self.seen.append(("train", self.global_step, batch_idx))
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.seen.append(("score", self.global_step, batch_idx))

    def on_train_end(self):
        self.seen.append(("end", self.global_step))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, module, *, checkpoint=None, **settings):
    trainer = Trainer(
        accelerator="cpu",
        max_steps=4,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[LoopState()],
        **settings,
    )
    loaders = (torch.utils.data.DataLoader(each) for each in (Endless(), Scored()))
    trainer.fit(module, *loaders, ckpt_path=checkpoint, weights_only=True)
    return module.seen, trainer


WHOLE = [
    *[("train", 0, 0), ("train", 1, 1), ("score", 2, 0), ("score", 2, 1)],
    *[("train", 2, 2), ("train", 3, 3), ("score", 4, 0), ("score", 4, 1), ("end", 4)],
]
# hook, at which call of it, and where the run goes on
MOMENTS = [
    ("on_train_batch_end", 1, 1),
    ("on_train_batch_start", 2, 1),
    ("on_train_batch_end", 2, 2),
    ("on_validation_start", 1, 2),
    ("on_validation_batch_end", 2, 2),
    ("on_validation_end", 1, 4),
    ("on_train_batch_start", 3, 4),
    ("on_train_batch_end", 4, 6),
    ("on_validation_start", 2, 6),
    ("on_validation_batch_end", 3, 6),
    ("on_validation_end", 2, 8),
    ("on_train_end", 1, 8),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("hook", "at", "rest"), MOMENTS)
def test_a_checkpoint_of_any_moment_goes_on_with_what_was_not_done(tmp_path, hook, at, rest):
    path = tmp_path / "a.ckpt"
    with pytest.raises(InterruptedError):
        fit(tmp_path, Tiny(hook, at, path))
    seen, trainer = fit(tmp_path, Tiny(), checkpoint=path)
    assert seen == WHOLE[rest:]
    assert trainer.fit_loop.epoch_loop._batches_that_stepped == 4
    assert (trainer.global_step, trainer.current_epoch) == (4, 1)
    assert finished_batches(trainer) == 4
    assert not is_within_step(trainer)


@pytest.mark.filterwarnings("ignore")
def test_without_it_lightning_leaves_a_validation_out(tmp_path, monkeypatch):
    # why the file is there: where a release does this by itself, most of it can go
    monkeypatch.setattr(LoopState, "on_load_checkpoint", lambda *_: None)
    path = tmp_path / "a.ckpt"
    with pytest.raises(InterruptedError):
        fit(tmp_path, Tiny("on_validation_start", 2, path))
    seen, _ = fit(tmp_path, Tiny(), checkpoint=path)
    assert seen == []
