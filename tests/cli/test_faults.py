"""Preemption, faults and spikes as ``train.py`` has them."""

import signal

import pytest
import torch

SPIKY = """
from pile_lightning import CausalLM

class Spiky(CausalLM):
    steps = 0

    def loss_sum(self, batch):
        loss = super().loss_sum(batch)
        if self.training:
            Spiky.steps += 1
        return loss * (50 if self.training and Spiky.steps == {at} else 1)
"""
TOLD = """
import os, signal
from lightning import Callback

class Told(Callback):
    def on_before_optimizer_step(self, trainer, *_):
        if trainer.global_step == 4:
            os.kill(os.getpid(), signal.{number})
"""


def last(folder):
    return torch.load(folder / "run/checkpoints/last.ckpt", weights_only=True)


@pytest.fixture
def run(small, corpus):
    return ["fit", *small, f"--data.sources={corpus}", "--trainer.max_steps=8"]


def test_a_run_that_is_told_to_leave_says_how_to_go_on(run, tmp_path, command_line):
    (tmp_path / "mine.py").write_text(TOLD.format(number="SIGUSR2"))
    own = ["--trainer.callbacks+=mine.Told", "--preemption.signals=[SIGUSR2]"]
    before = signal.getsignal(signal.SIGUSR2)
    done = command_line(*run, *own, "--preemption.exit_code=99", cwd=tmp_path, fails=True)
    assert "SIGUSR2: left after step 5, which is saved (exit code 99)" in done.stdout
    assert "python train.py fit --config run/config.yaml --ckpt_path auto" in done.stdout
    assert "Traceback" not in done.stderr
    assert last(tmp_path)["global_step"] == 5
    signal.signal(signal.SIGUSR2, before)  # the process should have ended by now
    command_line("fit", "--config=run/config.yaml", "--ckpt_path=auto", cwd=tmp_path)
    assert last(tmp_path)["global_step"] == 8


@pytest.mark.slow
def test_a_spike_is_rewound_and_the_run_ends_by_itself(run, tmp_path, command_line):
    (tmp_path / "mine.py").write_text(SPIKY.format(at=7))
    own = ["--model=mine.Spiky", "--spikes.deviations=6", "--spikes.window=4"]
    done = command_line(*run, *own, "--last_checkpoint.every_n_steps=5", cwd=tmp_path)
    assert "The loss spikes at step 7: back to step 5" in done.stdout
    ended = last(tmp_path)
    assert ended["global_step"] == 8
    assert ended["TextData"]["rows"] == (8 + 2) * 8


@pytest.mark.slow
def test_losses_that_stay_no_numbers_end_the_run_with_one_message(run, tmp_path, command_line):
    (tmp_path / "mine.py").write_text(SPIKY.format(at="Spiky.steps").replace("50", "float('nan')"))
    own = ["--model=mine.Spiky", "--non_finite.max_in_a_row=3"]
    done = command_line(*run, *own, cwd=tmp_path, fails=True)
    assert "error: non_finite.max_in_a_row=3 steps in a row" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "run/non_finite").iterdir())) == 3


def test_a_setting_out_of_range_gives_one_message(run, tmp_path, command_line):
    done = command_line(*run, "--preemption.signals=[SIGTERN]", cwd=tmp_path, fails=True)
    assert "'SIGTERN', which is no signal that can be heeded" in done.stderr
    assert "Traceback" not in done.stderr


def test_preparing_text_can_be_told_to_leave(run, tmp_path, command_line):
    (tmp_path / "mine.py").write_text(
        "import os, signal\n"
        "from pile_lightning import TextData\n"
        "class Told(TextData):\n"
        "    def prepare_data(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        raise AssertionError('nobody has left')\n"
    )
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(AssertionError) as left:
            command_line(*run, "--data=mine.Told", cwd=tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "nobody has left" not in str(left.value)
