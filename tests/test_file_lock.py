import os
import signal
import subprocess
import sys

import pytest

from pile_lightning.file_lock import lock_file

HOLD = """
import os, sys, time
from pile_lightning.file_lock import lock_file
lock = lock_file(sys.argv[1])
lock.note("me")
child = os.fork()  # as a loader's worker is
print(child or "", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds a lock and has a forked child."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        yield process
        process.kill()
        os.kill(child, signal.SIGKILL)


def test_a_lock_is_held_by_one_process_and_free_when_it_is_killed(tmp_path, holder):
    assert lock_file(tmp_path / "lock") is None
    assert (tmp_path / "lock").read_text() == "me"
    holder.kill()
    holder.wait()
    lock = lock_file(tmp_path / "lock")  # although the child still runs
    assert lock is not None
    lock.release()


def test_a_lock_is_held_once_in_a_process_and_leaves_nothing(tmp_path):
    lock = lock_file(tmp_path / "lock")
    assert lock_file(tmp_path / "lock") is None
    (tmp_path / "link").symlink_to(tmp_path)
    assert lock_file(tmp_path / "link" / "lock") is None
    lock.release()
    lock.release()
    assert not (tmp_path / "lock").exists()
    lock_file(tmp_path / "lock").release()


def test_who_opened_the_file_before_it_was_removed_does_not_hold_the_lock(tmp_path, monkeypatch):
    """The owner leaves, and another comes, between the opening and the locking."""
    path = tmp_path / "lock"
    first, opened = lock_file(path), os.open

    def open_late(*arguments):
        descriptor = opened(*arguments)
        monkeypatch.undo()
        first.release()
        path.touch()
        return descriptor

    monkeypatch.setattr("pile_lightning.file_lock._HELD", set())
    monkeypatch.setattr("os.open", open_late)
    second = lock_file(path)
    assert os.path.samestat(os.fstat(second._descriptor), path.stat())
    second.release()
