"""``last.ckpt`` is a whole step, and ``best.ckpt`` the best score, whatever was resumed between."""

import math

import pytest
import torch

from pile_lightning.callbacks import BestCheckpoint, LastCheckpoint
from pile_lightning.checkpoint import AtomicCheckpointIO
from pile_lightning.modules import CausalLM


class Noting(AtomicCheckpointIO):
    """Notes the step of each checkpoint and how many rows its data had served."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.steps = []
        self.rows = []

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        self.steps.append(checkpoint["global_step"])
        self.rows.append(checkpoint["TextData"]["rows"])
        super().save_checkpoint(checkpoint, path, storage_options)


class Scripted(CausalLM):
    """Scores what the test says, by step."""

    scores = {}

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        self.log("val/bits_per_byte", self.scores[self.trainer.global_step])
        self.log("val/loss", 0.0)


@pytest.fixture
def fit(make_trainer, make_model, make_data):
    """Fit a model whose scores are given, and return what was noted of its saves."""

    def run(*callbacks, scores=None, ckpt_path=None, io=None, **settings):
        noting = io or Noting()
        if scores is not None:
            settings = {"limit_val_batches": 1, "val_check_interval": 2, **settings}
        model = make_model(Scripted)
        model.scores = scores
        trainer = make_trainer(*callbacks, plugins=[noting], **settings)
        trainer.fit(model, make_data(), ckpt_path=ckpt_path, weights_only=True)
        return noting

    return run


def step_of(path):
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_last_is_saved_every_n_whole_steps_and_at_the_end(fit, tmp_path, accumulate):
    settings = {"accumulate_grad_batches": accumulate}
    noted = fit(LastCheckpoint(every_n_steps=3), max_steps=7, **settings)
    assert noted.steps == [3, 6, 7]
    assert noted.rows == [12, 24, 28]  # 4 rows a step: no micro-batch of the next step among them
    last = tmp_path / "run/checkpoints/last.ckpt"
    assert step_of(last) == 7
    noted = fit(LastCheckpoint(every_n_steps=7), max_steps=9, ckpt_path=last, **settings)
    assert (noted.steps, noted.rows) == ([9], [36])


def test_the_last_step_is_saved_once(fit):
    assert fit(LastCheckpoint(every_n_steps=2), max_steps=4).steps == [2, 4]


def test_an_interval_below_one_is_refused():
    with pytest.raises(ValueError, match=r"every_n_steps=0: .* choose at least 1"):
        LastCheckpoint(every_n_steps=0)


def test_a_quick_try_of_the_code_saves_nothing(fit, tmp_path):
    best = BestCheckpoint()
    noted = fit(LastCheckpoint(1), best, scores={1: 1.0}, fast_dev_run=True)
    assert (noted.steps, best.best_score) == ([], None)


def test_best_is_the_step_with_the_smallest_score(fit, tmp_path):
    best = BestCheckpoint()
    noted = fit(best, scores={2: 3.0, 4: 1.0, 6: 2.0, 8: 1.0}, max_steps=8)
    assert noted.steps == [2, 4]
    assert step_of(tmp_path / "run/checkpoints/best.ckpt") == 4
    assert (best.best_step, best.best_score) == (4, 1.0)


@pytest.mark.parametrize("last_first", [True, False])
@pytest.mark.parametrize("every", [2, 3])
def test_a_resumed_run_replaces_the_best_only_by_a_better_one(fit, tmp_path, last_first, every):
    folder = tmp_path / "run/checkpoints"

    def part(scores, ckpt_path=None):
        callbacks = [LastCheckpoint(every), BestCheckpoint()]
        callbacks = callbacks if last_first else callbacks[::-1]
        fit(*callbacks, scores=scores, max_steps=max(scores), ckpt_path=ckpt_path)
        return step_of(folder / "best.ckpt")

    # last.ckpt of step 4 is saved before that step is scored, which is done again from there
    assert part({2: 3.0, 4: 1.0}) == 4
    assert part({4: 1.0, 6: 2.0}, folder / "last.ckpt") == 4
    assert part({6: 2.0, 8: 1.5, 10: 0.5}, folder / "last.ckpt") == 10


def test_a_best_from_beyond_the_resumed_step_does_not_count(fit, tmp_path):
    folder = tmp_path / "run/checkpoints"
    fit(LastCheckpoint(), scores={2: 3.0}, max_steps=2)
    (folder / "last.ckpt").rename(folder / "two.ckpt")
    fit(BestCheckpoint(), scores={2: 3.0, 4: 1.0}, max_steps=4, ckpt_path=folder / "two.ckpt")
    best = BestCheckpoint()
    fit(best, scores={2: 3.0, 4: 2.0}, max_steps=4, ckpt_path=folder / "two.ckpt")
    assert best.best_score == 2.0


def test_a_score_that_is_no_number_is_never_the_best(fit, tmp_path):
    best = BestCheckpoint()
    noted = fit(best, scores={2: math.nan, 4: 2.0, 6: math.nan}, max_steps=6)
    assert (noted.steps, best.best_step) == ([4], 4)


def test_an_unknown_score_names_those_that_were_logged(fit):
    with pytest.raises(ValueError, match=r"monitor='val/x' was not .* val/bits_per_byte, val/loss"):
        fit(BestCheckpoint(monitor="val/x"), scores={2: 1.0})


def test_only_training_has_a_best(make_trainer, make_model, make_data, fit, tmp_path):
    best = BestCheckpoint()
    fit(best, scores={0: 0.1, 2: 1.0}, max_steps=2, num_sanity_val_steps=1)
    assert (best.best_step, best.best_score) == (2, 1.0)
    before = (tmp_path / "run/checkpoints/best.ckpt").read_bytes()
    model = make_model(Scripted)
    model.scores = {0: 0.1}
    make_trainer(best, limit_val_batches=1).validate(model, make_data(), verbose=False)
    assert (tmp_path / "run/checkpoints/best.ckpt").read_bytes() == before


@pytest.mark.parametrize("background", [False, True])
def test_a_best_that_was_not_saved_is_not_the_best(fit, tmp_path, monkeypatch, background):
    save, full = torch.save, iter([False, True, False])

    def sometimes(checkpoint, file):
        if next(full):
            raise OSError(28, "No space left on device")
        save(checkpoint, file)

    monkeypatch.setattr(torch, "save", sometimes)
    best = BestCheckpoint()
    with pytest.warns(UserWarning, match="best.ckpt was not saved: .*No space"):
        fit(
            best,
            io=Noting(background=background),
            scores={2: 3.0, 4: 1.0, 6: 2.0, 8: 2.5},
            max_steps=8,
        )
    assert step_of(tmp_path / "run/checkpoints/best.ckpt") == 6
    assert (best.best_step, best.best_score) == (6, 2.0)


def test_a_damaged_best_is_replaced(fit, tmp_path):
    folder = tmp_path / "run/checkpoints"
    fit(LastCheckpoint(2), BestCheckpoint(), scores={2: 1.0}, max_steps=2)
    (folder / "best.ckpt").write_bytes(b"damaged")
    scores = {2: 1.0, 4: 0.5}
    with pytest.warns(UserWarning, match="next score counts as the best.*best.ckpt"):
        fit(BestCheckpoint(), scores=scores, max_steps=4, ckpt_path=folder / "last.ckpt")
    assert step_of(folder / "best.ckpt") == 4
