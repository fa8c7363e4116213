"""The bar counts optimizer steps, and leaves the screen tidy."""

import pytest

from pile_lightning.callbacks import (
    LastCheckpoint,
    MetricsCsv,
    StepProgressBar,
    progress,
    read_metrics,
)
from pile_lightning.modules import CausalLM


class Bar:
    """Stands in for ``tqdm`` and notes what is asked of it."""

    made = []
    lines = []

    def __init__(self, *, desc, total, initial, **_):
        self.desc, self.total, self.initial, self.n = desc, total, initial, initial
        self.seen, self.shown, self.closed = [], {}, 0
        Bar.made.append(self)

    def update(self, count=1):
        self.n += count
        self.seen.append(self.n)

    def set_postfix(self, shown, refresh):
        self.shown = shown

    def close(self):
        self.closed += 1

    @staticmethod
    def write(line, file):
        Bar.lines.append(line)


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr(progress, "tqdm", Bar)
    monkeypatch.setattr(Bar, "made", [])
    monkeypatch.setattr(Bar, "lines", [])
    return Bar


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_the_bar_counts_optimizer_steps(
    bars, make_trainer, make_model, make_data, tmp_path, accumulate
):
    settings = {"accumulate_grad_batches": accumulate, "logger": MetricsCsv(tmp_path)}
    make_trainer(StepProgressBar(), **settings).fit(make_model(), make_data())
    (bar,) = bars.made
    assert (bar.initial, bar.total, bar.seen) == (0, 4, [1, 2, 3, 4])
    losses = [f"{row['train/loss']:.3f}" for row in read_metrics(tmp_path / "metrics.csv")]
    assert bar.shown["loss"] in losses
    assert bar.closed == 1


def test_a_resumed_run_goes_on_from_its_step(bars, make_trainer, make_model, make_data, tmp_path):
    last = tmp_path / "run/checkpoints/last.ckpt"
    for steps, ckpt_path in ((3, None), (5, last)):
        trainer = make_trainer(StepProgressBar(), LastCheckpoint(), max_steps=steps)
        trainer.fit(make_model(), make_data(), ckpt_path=ckpt_path, weights_only=True)
    bar = bars.made[-1]
    assert (bar.initial, bar.total, bar.seen) == (3, 5, [4, 5])


@pytest.mark.parametrize("sanity_steps", [0, 1])
def test_validation_has_a_bar_below_and_leaves_a_line(
    bars, make_trainer, make_model, make_data, sanity_steps
):
    trainer = make_trainer(
        StepProgressBar(),
        num_sanity_val_steps=sanity_steps,
        limit_val_batches=3,
        val_check_interval=2,
    )
    trainer.fit(make_model(), make_data())
    training, *validation = [bar for bar in bars.made if "training" in bar.desc] + [
        bar for bar in bars.made if "held-out" in bar.desc
    ]
    assert training.seen == [1, 2, 3, 4]
    assert [(bar.total, bar.seen) for bar in validation[-2:]] == [(3, [1, 2, 3])] * 2
    assert all(bar.closed == 1 for bar in bars.made)
    scores = trainer.callback_metrics
    bits, loss = scores["val/bits_per_byte"].item(), scores["val/loss"].item()
    expected = f"step 4: held-out bits_per_byte {bits:.4f}, loss {loss:.4f}"
    assert bars.lines[-1] == expected
    assert [line.split(":")[0] for line in bars.lines] == ["step 2", "step 4"]


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_the_other_commands_count_batches(bars, make_trainer, make_model, make_data, command):
    limits = {f"limit_{name}_batches": 3 for name in ("val", "test", "predict")}
    trainer = make_trainer(StepProgressBar(), **limits)
    quietly = {} if command == "predict" else {"verbose": False}
    getattr(trainer, command)(make_model(), make_data(), **quietly)
    (bar,) = bars.made
    assert (bar.total, bar.seen, bar.closed) == (3, [1, 2, 3], 1)
    assert bars.lines == []


@pytest.mark.parametrize("step", ["training_step", "validation_step"])
def test_an_error_closes_all_bars(bars, make_trainer, make_model, make_data, validating, step):
    def fail(self, batch, batch_idx):
        raise RuntimeError("broken")

    model = make_model(type("Broken", (CausalLM,), {step: fail}))
    with pytest.raises(RuntimeError, match="broken"):
        make_trainer(StepProgressBar(), **validating).fit(model, make_data())
    assert bars.made
    assert all(bar.closed == 1 for bar in bars.made)


def test_a_disabled_bar_shows_nothing(bars, make_trainer, make_model, make_data, validating):
    bar = StepProgressBar()
    bar.disable()
    make_trainer(bar, **validating).fit(make_model(), make_data())
    assert (bars.made, bars.lines) == ([], [])
    bar.enable()
    bar.print("a", 1)
    assert bars.lines == ["a 1"]


def test_the_real_bar_ends_on_a_line_of_its_own(make_trainer, make_model, make_data, capsys):
    make_trainer(StepProgressBar()).fit(make_model(), make_data())
    shown = capsys.readouterr().err
    assert "4/4" in shown
    assert shown.endswith("\n")
