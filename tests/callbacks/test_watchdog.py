"""A batch that never ends is noticed in time, and said where it stands."""

import os
import threading
import time

import pytest
from lightning import Callback

from pile_lightning.callbacks import LastCheckpoint, Watchdog
from pile_lightning.callbacks.watchdog import _open


class Hangs(Callback):
    """Wait in a hook until somebody gives up."""

    def __init__(self, hook):
        self.given_up = threading.Event()
        setattr(self, hook, self.wait_for_ever)

    def wait_for_ever(self, *_args, **_kwargs):
        assert self.given_up.wait(20), "nobody noticed"


@pytest.mark.parametrize("hook", ["on_before_optimizer_step", "on_validation_batch_start"])
def test_a_hang_is_noticed_in_time_and_located(
    hook, make_trainer, make_model, make_data, validating, tmp_path, monkeypatch, capfd
):
    dog, hangs, ended = Watchdog(timeout=0.5), Hangs(hook), []

    def exit_in_name_only(code):
        ended.append((code, time.monotonic() - dog._last))
        dog._over.set()
        hangs.given_up.set()

    monkeypatch.setattr(os, "_exit", exit_in_name_only)
    monkeypatch.setattr("pile_lightning.callbacks.watchdog.GRACE", 0.1)
    make_trainer(dog, hangs, **validating).fit(make_model(), make_data())
    ((code, seconds),) = ended
    assert code == 87
    assert 0.5 < seconds < 1.5
    for said in ((tmp_path / "run/stacks-rank-0.txt").read_text(), capfd.readouterr().err):
        assert "Rank 0 has made no progress for 0.5 seconds (watchdog.timeout) after step" in said
        assert "in wait_for_ever" in said


def test_a_run_that_goes_on_is_left_alone(make_trainer, make_model, make_data, tmp_path):
    slow = Callback()
    slow.on_train_batch_start = lambda *_: time.sleep(0.3)
    slow.on_validation_batch_start = lambda *_: time.sleep(0.3)
    slow.on_save_checkpoint = lambda *_: time.sleep(0.3)
    dog = Watchdog(timeout=1.5)
    before = threading.active_count()
    trainer = make_trainer(
        slow, dog, LastCheckpoint(), limit_val_batches=6, val_check_interval=4, max_steps=4
    )
    trainer.fit(make_model(), make_data())
    assert trainer.global_step == 4
    assert threading.active_count() == before
    assert not list((tmp_path / "run").glob("stacks*"))


def test_it_stops_where_the_run_fails(make_trainer, make_model, make_data):
    def fail(*_args):
        raise RuntimeError("no more")

    broken = Callback()
    broken.on_train_batch_end = fail
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no more"):
        make_trainer(broken, Watchdog(timeout=0.2)).fit(make_model(), make_data())
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout": 0}, "timeout=0: .*more than 0"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"exit_code": 1}, "choose 3 to 125"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Watchdog(**settings)


def test_stacks_that_find_the_disk_full_go_to_standard_error_alone(tmp_path):
    (tmp_path / "run").write_text("no folder")
    with pytest.warns(UserWarning, match=r"stacks-rank-0.txt cannot be written: .*standard error"):
        file = _open(tmp_path / "run/stacks-rank-0.txt")
    with file:
        file.write("lost")
