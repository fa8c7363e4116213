"""A step that is not finite changes nothing but the count, and the run does not go on for ever."""

import copy
import json
import math

import pytest
import torch
from lightning import Callback

from pile_lightning.callbacks import LastCheckpoint, MetricsCsv, SkipNonFinite, read_metrics
from pile_lightning.modules import CausalLM
from pile_lightning.optim import AdamWConfig, MuonConfig


class Breaks(Callback):
    """Spoil micro-batches: the loss, or one gradient of the last of a step."""

    def __init__(self, batches, *, value=math.nan, gradient=False):
        self.batches, self.value, self.gradient = batches, value, gradient
        self.before = self.after = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.spoil = self.value if batch_idx in self.batches and not self.gradient else None
        if batch_idx in self.batches and self.before is None:
            self.before = state_of(trainer)

    def on_after_backward(self, trainer, pl_module):
        if self.gradient and trainer.fit_loop.batch_idx in self.batches:
            next(reversed(list(pl_module.parameters()))).grad.view(-1)[-1] = self.value

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == max(self.batches, default=-1):
            self.after = state_of(trainer)
            self.factor = trainer.lr_scheduler_configs[0].scheduler.last_epoch


def state_of(trainer):
    weights = trainer.lightning_module.state_dict()
    states = [state for _, state in sorted(trainer.optimizers[0].state_dict()["state"].items())]
    return copy.deepcopy([weights, *states])


def assert_equal(before, after):
    assert len(before) == len(after) > 1
    for one, other in zip(before, after, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(value, other[name]), name


class Spoilt(CausalLM):
    spoil = None

    def loss_sum(self, batch):
        loss = super().loss_sum(batch)
        return loss if self.spoil is None else loss * self.spoil


@pytest.fixture
def fit(make_trainer, make_model, make_data, tmp_path):
    def run(*callbacks, optimizer=None, **settings):
        root = tmp_path / "run"
        trainer = make_trainer(*callbacks, logger=MetricsCsv(root), **({"max_steps": 8} | settings))
        model = make_model(Spoilt)
        model.optimizer_config = optimizer or AdamWConfig()
        trainer.fit(model, make_data())
        return trainer, read_metrics(root / "metrics.csv")

    return run


CASES = {
    "a loss": {"value": math.nan},
    "a loss without bound": {"value": math.inf},
    "one gradient": {"value": math.nan, "gradient": True},
    "one gradient without bound": {"value": -math.inf, "gradient": True},
}


@pytest.mark.filterwarnings("ignore:step .* has a loss or gradient")
@pytest.mark.parametrize("optimizer", [AdamWConfig(), MuonConfig()], ids=["adamw", "muon"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_weights_and_optimizer_stay_and_all_else_goes_on(case, accumulate, optimizer, fit):
    batches = {5, 6} if accumulate == 1 else {8, 9, 10, 11}
    breaks, skip = Breaks(batches, **CASES[case]), SkipNonFinite()
    trainer, metrics = fit(
        breaks, skip, optimizer=optimizer, accumulate_grad_batches=accumulate, gradient_clip_val=1
    )
    assert_equal(breaks.before, breaks.after)
    assert skip.skipped_steps == 2
    steps = (max(batches) + 1) // accumulate
    assert breaks.factor == steps  # the schedule has counted them
    assert trainer.global_step == 8
    assert trainer.datamodule.state_dict()["rows"] == 8 * 4  # and so have the data
    counts = {row["step"]: row.get("train/skipped_steps") for row in metrics}
    assert counts[steps] == counts[8] == 2
    assert counts[1] is None
    assert all(p.isfinite().all() for p in trainer.lightning_module.parameters())


@pytest.mark.filterwarnings("ignore:step .* has a loss or gradient")
def test_too_many_in_a_row_end_the_run_and_leave_their_batches(fit, tmp_path):
    last = LastCheckpoint(every_n_steps=1)
    message = r"max_in_a_row=3 steps in a row, up to step 5, .* those of step 2; look at"
    with pytest.raises(FloatingPointError, match=message):
        fit(Breaks(range(2, 8)), SkipNonFinite(max_in_a_row=3), last)
    files = sorted(path.name for path in (tmp_path / "run/non_finite").iterdir())
    assert files == [f"step-{n:06d}-rank-0.jsonl" for n in (3, 4, 5)]
    lines = (tmp_path / "run/non_finite" / files[0]).read_text().splitlines()
    assert len(lines) == 4
    row = json.loads(lines[0])
    assert row["loss"] == "nan"
    assert len(row["input_ids"]) == len(row["labels"]) == 32
    assert len(row["text"]) > 8
    assert torch.load(last.path, weights_only=True)["callbacks"]["SkipNonFinite"] == {
        "skipped_steps": 2
    }


@pytest.mark.filterwarnings("ignore:step .* has a loss or gradient")
def test_a_good_step_between_begins_a_new_count(fit):
    skip = SkipNonFinite(max_in_a_row=2)
    fit(Breaks({1, 3, 5, 7}), skip)
    assert skip.skipped_steps == 4


def test_nothing_is_said_of_a_run_without(fit):
    skip = SkipNonFinite()
    _, metrics = fit(skip)
    assert not any("train/skipped_steps" in row for row in metrics)


def test_a_number_out_of_range_is_refused():
    with pytest.raises(ValueError, match="max_in_a_row=0.*at least 1"):
        SkipNonFinite(max_in_a_row=0)
