"""A run's folder has one owner at a time, and is touched when all is checked."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pile_lightning.callbacks import Rewound
from pile_lightning.cli import run_folder
from pile_lightning.cli.run_folder import ClearFolder, SaveFitConfig, make_room, owned
from pile_lightning.file_lock import lock_file
from tests.conftest import REPOSITORY

HOLD = """
import sys
from pathlib import Path
from pile_lightning.cli.run_folder import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in ``run``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=REPOSITORY) as process:
        assert process.stdout.readline() == b"owned\n"
        yield process
        process.kill()


def own(folder):
    with owned(folder):
        assert lock_file(folder / ".owner") is None


def test_a_second_run_is_refused_by_the_name_of_the_first_until_that_is_killed(tmp_path, holder):
    who = rf"{socket.gethostname()}, process {holder.pid}, since \d{{4}}-.*default_root_dir"
    with pytest.raises(ValueError, match=rf"another run trains in .*run: {who}"):
        own(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(ValueError, match=who):
        own(tmp_path / "link")
    holder.kill()
    holder.wait()
    own(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_the_lock_of_another_machine_is_waited_for(tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    lock = lock_file(tmp_path / "run/.owner")
    lock.note("elsewhere, process 1, since yesterday")
    monkeypatch.setattr(run_folder.time, "sleep", lambda seconds: lock.release())
    own(tmp_path / "run")
    assert "owned by elsewhere, process 1, since yesterday; waiting" in capsys.readouterr().out


def test_a_failed_run_leaves_no_folder_and_a_rewound_one_keeps_it(tmp_path):
    with pytest.raises(KeyError), owned(tmp_path / "run"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    with pytest.raises(Rewound), owned(tmp_path / "run"):
        raise Rewound(86, alone=True)
    assert lock_file(tmp_path / "run/.owner") is None
    own(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch, number):
    def refuse(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_folder, "lock_file", refuse)
    with pytest.warns(UserWarning, match="cannot be locked .*no other run"), owned(tmp_path / "a"):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match=r"a cannot be written \(File exists\); choose another"):
        own(tmp_path / "a")


@pytest.fixture
def earlier(tmp_path):
    """The folder of an earlier run."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "metrics.csv").write_text("step\n")
    (run / "checkpoints/last.ckpt").write_text("weights")
    (run / "logs").mkdir()
    (run / "logs/one").write_text("")
    return run


def tree(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_an_earlier_run_is_moved_whole_and_the_new_one_keeps_its_lock(tmp_path, earlier):
    (tmp_path / ".run.partial").mkdir()  # of a kill
    (tmp_path / ".run.partial/.owner").touch()
    before = tree(earlier)
    callback = ClearFolder(earlier, fresh=True)
    with owned(earlier):
        (earlier / "logs/version_1").mkdir()  # of another logger
        (earlier / "logs/version_1/events").write_text("new")
        make_room(earlier, callback._before)
        assert sorted(tree(earlier)) == [
            ".owner",
            "logs",
            "logs/version_1",
            "logs/version_1/events",
        ]
        command = [sys.executable, "-c", HOLD, str(earlier)]
        other = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        assert "another run trains in" in other.stderr
    moved = tree(tmp_path / "run.1")
    assert moved.keys() == before.keys()
    assert (tmp_path / "run.1/checkpoints/last.ckpt").read_text() == "weights"
    assert not (tmp_path / ".run.partial").exists()
    make_room(earlier)
    assert not (tmp_path / "run.2").exists(), "there was no earlier run"


def test_a_folder_that_cannot_be_moved_is_one_line(tmp_path, earlier, monkeypatch):
    with monkeypatch.context() as patch:
        patch.chdir(earlier / "logs")
        with pytest.raises(ValueError, match=r"and this process runs in it; choose another"):
            make_room(Path(".."))

    def refuse(self, target):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match=r"cannot be moved to .*run.1 \(Device or resource busy\)"):
        make_room(earlier)


def test_a_link_stays_and_the_earlier_run_stays_where_there_is_room(tmp_path, earlier):
    link = tmp_path / "latest"
    link.symlink_to(earlier)
    make_room(link)
    assert link.is_symlink()
    assert (tmp_path / "run.1/metrics.csv").exists()
    assert not list(link.iterdir())


FAILING = {
    "a source that is not there": ["--data.sources=nowhere"],
    "a batch that does not divide": ["--trainer.accumulate_grad_batches=3"],
    "a prompt that is too long": ["--samples.prompts=[" + "x" * 99 + "]"],
    "a checkpoint of other rows": ["--ckpt_path=last", "--trainer.max_steps=2", "--data.seed=7"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus, command_line, small):
    """A folder in which there is the run of one step, and the arguments that made it."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = ["fit", *small, f"--data.sources={corpus}", "--trainer.max_steps=1"]
    command_line(*arguments, "--samples.prompts=['caf\u00e9']", cwd=folder)
    return folder, arguments


@pytest.mark.parametrize("why", FAILING)
def test_a_fit_that_fails_leaves_the_earlier_run_alone(finished, command_line, why):
    folder, arguments = finished
    before = tree(folder)
    command_line(*arguments, *FAILING[why], cwd=folder, fails=True)
    after = tree(folder)
    after.pop("lightning_logs", None)
    assert {name for name in before if before[name] != after.get(name)} <= {"run"}
    assert after.keys() == before.keys()


def test_the_config_is_whole_and_utf_8_whatever_the_locale(finished):
    folder, _ = finished
    config = yaml.safe_load((folder / "run/config.yaml").read_bytes().decode("utf-8"))
    assert config["samples"]["prompts"] == ["caf\u00e9"]


def test_a_config_that_finds_the_disk_full_is_saved_later(tmp_path, monkeypatch):
    parser = SimpleNamespace(dump=lambda config, skip_unset: "prompt: caf\u00e9\n")
    callback = SaveFitConfig(parser, None, overwrite=True)
    trainer = SimpleNamespace(log_dir=str(tmp_path), is_global_zero=True)
    (tmp_path / "config.yaml").write_text("the one before")

    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    callback.setup(trainer, None, "fit")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.warns(UserWarning, match=r"config.yaml was not written: No space left"):
            callback.on_train_start(trainer, None)
    assert (tmp_path / "config.yaml").read_text() == "the one before"
    callback.on_validation_end(trainer, None)
    assert (tmp_path / "config.yaml").read_bytes() == "prompt: caf\u00e9\n".encode()


STOP = """
from lightning import Callback

class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            raise KeyboardInterrupt
"""


def test_ctrl_c_says_how_to_go_on(tmp_path, command_line, small, corpus):
    (tmp_path / "mine.py").write_text(STOP)
    handler = signal.getsignal(signal.SIGINT)
    arguments = [*small, f"--data.sources={corpus}", "--samples.prompts=[]"]
    arguments += ["--trainer.callbacks=mine.Stop", "--last_checkpoint.every_n_steps=1"]
    done = command_line("fit", *arguments, "--trainer.max_steps=4", cwd=tmp_path, fails=True)
    signal.signal(signal.SIGINT, handler)  # Lightning ignores it from then on
    assert "Ctrl-C after step 2. To go on" in done.stdout
    assert "--config run/config.yaml --ckpt_path auto" in done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run/.owner").exists()
