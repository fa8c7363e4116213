"""A signal at any moment: the run leaves with its code, and goes on as if nothing had been."""

import os
import signal
import threading

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from pile_lightning.callbacks import LastCheckpoint, MetricsCsv, Preempted, Preemption, read_metrics


class Signal(Callback):
    """Send signals to this process when a hook is called for the n-th time."""

    def __init__(self, hook, at, numbers=(signal.SIGTERM,)):
        self.left, self.numbers = at, numbers
        setattr(self, hook, self._call)

    def _call(self, *_args, **_kwargs):
        self.left -= 1
        if self.left == 0:
            for number in self.numbers:
                os.kill(os.getpid(), number)


@pytest.fixture
def fit(make_trainer, make_model, make_data, tmp_path):
    """Train 8 steps in a folder, scoring after each third; return weights and metrics."""

    def run(folder, *callbacks, resume=False, **settings):
        root = tmp_path / folder
        last = root / "checkpoints/last.ckpt"
        trainer = make_trainer(
            *callbacks,
            LastCheckpoint(every_n_steps=4),
            Preemption(),
            max_steps=8,
            limit_val_batches=3,
            val_check_interval=3,
            logger=MetricsCsv(root),
            default_root_dir=root,
            **settings,
        )
        trainer.fit(make_model(), make_data(), ckpt_path=last if resume else None)
        checkpoint = torch.load(last, weights_only=True)
        return checkpoint, read_metrics(root / "metrics.csv")

    return run


MOMENTS = {
    "in a step": ("on_before_optimizer_step", 5, 5),
    "before a validation that is due": ("on_before_optimizer_step", 3, 3),
    "in a validation": ("on_validation_batch_start", 2, 3),
    "in the second validation": ("on_validation_batch_end", 5, 6),
    "in a save": ("on_save_checkpoint", 1, 4),
    "as training starts": ("on_train_start", 1, 0),
    "as the data are set up": ("on_fit_start", 1, 0),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_ends_the_run_and_it_goes_on_as_if_there_had_been_none(moment, fit, tmp_path):
    hook, at, step = MOMENTS[moment]
    whole, metrics = fit("whole")
    with pytest.raises(Preempted) as left:
        fit("stopped", Signal(hook, at, (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM)))
    assert left.value.code == 85
    path = tmp_path / "stopped/checkpoints/last.ckpt"
    if not step:
        assert not path.exists()
        return
    assert torch.load(path, weights_only=True)["global_step"] == step
    again, its_metrics = fit("stopped", resume=True)
    assert again["global_step"] == 8
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, again["state_dict"][name]), name
    assert its_metrics == metrics


def test_one_step_is_saved_once(fit):
    saves = []

    class Count(Callback):
        def on_save_checkpoint(self, trainer, pl_module, checkpoint):
            saves.append(trainer.global_step)

    with pytest.raises(Preempted):
        fit("stopped", Count(), Signal("on_before_optimizer_step", 4))
    assert saves == [4]


def test_the_handlers_that_were_there_are_there_again_and_were_told(fit):
    told = []

    def theirs(number, frame):
        told.append(number)

    def fail(*_args, **_kwargs):
        raise RuntimeError("something else")

    before = signal.signal(signal.SIGUSR1, theirs)
    try:
        fit("whole")
        assert signal.getsignal(signal.SIGUSR1) is theirs
        broken = Callback()
        broken.on_train_batch_end = fail
        with pytest.raises(RuntimeError, match="something else"):
            fit("broken", broken)
        os.kill(os.getpid(), signal.SIGUSR1)  # Lightning has put ours back, which hands it on
        assert told == [signal.SIGUSR1]
        with pytest.raises(Preempted):
            fit("stopped", Signal("on_train_batch_start", 2, [signal.SIGUSR1]))
        assert told == [signal.SIGUSR1] * 2
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_before_training_starts_a_signal_exits_at_once():
    preemption = Preemption(exit_code=99)
    preemption.listen()
    try:
        with pytest.raises(Preempted) as left:
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        preemption.on_exception(None, None, RuntimeError())
    assert left.value.code == 99


def test_another_thread_trains_without_listening():
    preemption, warned = Preemption(), []

    def listen():
        with pytest.warns(UserWarning, match="in another") as caught:
            preemption.listen()
        warned.extend(caught)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert warned


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"signals": ["SIGTERN"]}, "'SIGTERN', which is no signal that can be heeded"),
        ({"signals": ["SIGKILL"]}, "'SIGKILL', which is no signal"),
        ({"exit_code": 0}, "choose 3 to 125"),
        ({"exit_code": 143}, "choose 3 to 125"),
        ({"every_n_steps": 0}, "every_n_steps=0.*at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Preemption(**settings)


def test_it_asks_for_something_that_saves(make_trainer, make_model, make_data, tmp_path):
    trainer = make_trainer(Preemption(), ModelCheckpoint(tmp_path))
    with pytest.raises(ValueError, match="add LastCheckpoint"):
        trainer.fit(make_model(), make_data())
