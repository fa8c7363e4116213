"""A history keeps the newest of what is whole, counted in steps or tokens."""

import pytest
import torch

from pile_lightning.callbacks import CheckpointSummary, KeptCheckpoints, LastCheckpoint, Throughput
from pile_lightning.checkpoint import AtomicCheckpointIO


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())


@pytest.fixture
def fit(make_trainer, make_model, make_data):
    def run(*callbacks, io=None, ckpt_path=None, **settings):
        io = io or AtomicCheckpointIO()
        trainer = make_trainer(*callbacks, plugins=[io], **settings)
        trainer.fit(make_model(), make_data(), ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return run


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_newest_are_kept(fit, tmp_path, accumulate, background):
    fit(
        KeptCheckpoints(every_n_steps=2, keep=2),
        max_steps=9,
        accumulate_grad_batches=accumulate,
        io=AtomicCheckpointIO(background=background),
    )
    assert names(tmp_path) == ["step-00000006.ckpt", "step-00000008.ckpt"]


def test_all_are_kept_by_default(fit, tmp_path):
    fit(KeptCheckpoints(every_n_steps=1), max_steps=3)
    assert names(tmp_path) == [f"step-0000000{step}.ckpt" for step in (1, 2, 3)]


def test_tokens_are_counted_across_a_resume(fit, tmp_path):
    # 4 rows of 32 tokens a step: 300 tokens are reached in the third step, 600 in the fifth
    for max_steps, ckpt_path in ((4, None), (8, tmp_path / "run/checkpoints/last.ckpt")):
        kept = KeptCheckpoints(every_n_tokens=3e2)
        fit(Throughput(), kept, LastCheckpoint(), max_steps=max_steps, ckpt_path=ckpt_path)
    assert names(tmp_path) == ["last.ckpt", *(f"step-0000000{step}.ckpt" for step in (3, 5, 8))]


def test_tokens_need_their_counter(fit):
    with pytest.raises(ValueError, match=r"every_n_tokens=10 needs the callback Throughput"):
        fit(KeptCheckpoints(every_n_tokens=10))


@pytest.mark.parametrize("name", ["every_n_steps", "every_n_tokens", "keep"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=rf"kept_checkpoints.{name}=0 .* choose at least 1"):
        KeptCheckpoints(**{name: 0})


def test_without_an_interval_nothing_is_saved(fit, tmp_path):
    fit(KeptCheckpoints(keep=1))
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_run_that_went_back_keeps_its_own(fit, tmp_path):
    fit(KeptCheckpoints(every_n_steps=2), max_steps=8)
    folder = tmp_path / "run/checkpoints"
    fit(
        KeptCheckpoints(every_n_steps=1, keep=2),
        max_steps=5,
        ckpt_path=folder / "step-00000002.ckpt",
    )
    assert names(tmp_path) == ["step-00000004.ckpt", "step-00000005.ckpt"]


class FullFrom(AtomicCheckpointIO):
    """Cannot save from a step on."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        full = checkpoint["global_step"] >= self.step
        with pytest.MonkeyPatch.context() as patch:
            if full:
                patch.setattr(torch, "save", no_space)
            super().save_checkpoint(checkpoint, path, storage_options)


def no_space(checkpoint, file):
    raise OSError(28, "No space left on device")


def test_the_only_good_one_is_never_removed(fit, tmp_path):
    with pytest.warns(UserWarning, match="step-0000000[345].ckpt was not saved: .*No space"):
        fit(KeptCheckpoints(every_n_steps=1, keep=1), io=FullFrom(3), max_steps=5)
    assert names(tmp_path) == ["step-00000002.ckpt"]
    newest = tmp_path / "run/checkpoints/step-00000004.ckpt"
    newest.write_bytes(b"damaged")  # the newest by name, and no good
    fit(KeptCheckpoints(every_n_steps=10, keep=1), max_steps=1)
    assert names(tmp_path) == ["step-00000002.ckpt", newest.name]
    fit(KeptCheckpoints(every_n_steps=5, keep=1), max_steps=5)
    assert names(tmp_path) == ["step-00000005.ckpt"]


def test_a_run_that_cannot_save_goes_on_and_does_not_end_well(fit, tmp_path):
    last = tmp_path / "run/checkpoints/last.ckpt"
    with (
        pytest.warns(UserWarning, match="last.ckpt was not saved: .*training goes on"),
        pytest.raises(OSError, match=r"ended at step 4, which could not be saved .* Make room"),
    ):
        fit(LastCheckpoint(every_n_steps=1), io=FullFrom(3), max_steps=4)
    assert torch.load(last, weights_only=True)["global_step"] == 2


def test_a_checkpoint_says_what_a_list_shows(fit, tmp_path, validating):
    path = str(tmp_path / "run/checkpoints/last.ckpt")
    fit(Throughput(), CheckpointSummary(), LastCheckpoint(2), max_steps=4, **validating)
    summary = AtomicCheckpointIO().summary(path)
    assert (summary["step"], summary["tokens"], summary["scored_step"]) == (4, 4 * 4 * 32, 4)
    assert {"saved_at", "train/loss", "val/loss", "val/bits_per_byte"} <= summary.keys()
