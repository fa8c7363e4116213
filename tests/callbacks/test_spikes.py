"""A spike is undone: the old weights go on with the rows after it."""

import shutil

import pytest
import torch
from lightning import Callback

from pile_lightning.callbacks import LastCheckpoint, RewindSpikes, Rewound
from pile_lightning.checkpoint import AtomicCheckpointIO
from pile_lightning.modules import CausalLM

STEPS = 14


class Spiky(CausalLM):
    """Its loss is large in some batches of the run, counted from 0."""

    large = ()

    def loss_sum(self, batch):
        loss = super().loss_sum(batch)
        return loss * 50 if self.trainer.fit_loop.batch_idx in self.large else loss


class Seen(Callback):
    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch["input_ids"].clone())


@pytest.fixture
def fit(make_trainer, make_model, make_data, tmp_path):
    """Train in a folder, from its last checkpoint if there is one; return what it has seen."""

    def run(folder, *callbacks, large=(), **settings):
        path = tmp_path / folder / "checkpoints/last.ckpt"
        seen = Seen()
        trainer = make_trainer(
            seen,
            *callbacks,
            LastCheckpoint(every_n_steps=4),
            default_root_dir=tmp_path / folder,
            **({"max_steps": STEPS} | settings),
        )
        model = make_model(Spiky)
        model.large = large
        try:
            trainer.fit(model, make_data(), ckpt_path=path if path.exists() else None)
        finally:
            run.seen = seen.batches
        return torch.load(path, weights_only=True)

    return run


def rows(accumulate, make_data, first, last):
    """Return the micro-batches of some steps, in the order in which all runs see them."""
    data = make_data(batch_size=4 // accumulate)
    data.prepare_data()
    loader = iter(data.train_dataloader())
    batches = [next(loader)["input_ids"] for _ in range(last * accumulate)]
    return batches[first * accumulate :]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_rows_before_a_spike_are_not_seen_again_and_all_else_is_exact(
    accumulate, fit, make_data, tmp_path
):
    spikes = RewindSpikes(deviations=6, window=4)
    settings = {"accumulate_grad_batches": accumulate}
    with pytest.raises(Rewound) as left:
        fit("run", spikes, large=[9 * accumulate], **settings)  # the tenth step
    assert (left.value.code, left.value.alone) == (86, True)
    before = fit.seen
    ended = fit("run", RewindSpikes(deviations=6, window=4), **settings)
    expected = rows(accumulate, make_data, 0, 10) + rows(accumulate, make_data, 10, 16)
    assert len(before + fit.seen) == len(expected)
    for batch, row in zip(before + fit.seen, expected, strict=True):
        assert torch.equal(batch, row)
    assert ended["global_step"] == STEPS
    assert ended["TextData"]["rows"] == 16 * 4
    assert ended["callbacks"]["RewindSpikes"]["rewinds"] == 1

    # the same by hand: train to step 8, move the data on by two steps
    stop = Callback()
    stop.on_train_batch_end = lambda trainer, *_: setattr(
        trainer, "should_stop", trainer.global_step == 8
    )
    path = tmp_path / "hand/checkpoints/last.ckpt"
    checkpoint = fit("hand", stop, **settings)
    checkpoint["TextData"]["rows"] = 10 * 4
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    by_hand = fit("hand", **settings)
    for name, value in by_hand["state_dict"].items():
        assert torch.equal(value, ended["state_dict"][name]), name
    shutil.rmtree(tmp_path / "hand")


@pytest.mark.filterwarnings("ignore:the loss spikes")
@pytest.mark.parametrize(
    ("settings", "large"),
    [
        ({"deviations": None}, [9]),
        ({"deviations": 6, "window": 12}, [9]),  # nothing to compare with yet
        ({"deviations": 6, "window": 3}, [3]),  # no checkpoint yet
        ({"deviations": 6, "window": 4}, []),
    ],
    ids=["off", "too early", "nothing to go back to", "no spike"],
)
def test_a_run_goes_on(settings, large, fit):
    assert fit("run", RewindSpikes(**settings), large=large)["global_step"] == STEPS


def test_a_run_that_keeps_spiking_goes_on_in_the_end(fit):
    spikes = RewindSpikes(deviations=6, window=4, max_rewinds=1)
    with pytest.raises(Rewound):
        fit("run", spikes, large=[9])
    with pytest.warns(UserWarning, match="1 rewinds were all that spikes.max_rewinds allows"):
        ended = fit("run", RewindSpikes(deviations=6, window=4, max_rewinds=1), large=[9])
    assert ended["global_step"] == STEPS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deviations": 0}, "deviations=0.*or null for never"),
        ({"window": 1}, "window=1 and max_rewinds=10"),
        ({"max_rewinds": 0}, "window=100 and max_rewinds=0"),
        ({"exit_code": 1}, "choose 3 to 125"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RewindSpikes(**settings)
