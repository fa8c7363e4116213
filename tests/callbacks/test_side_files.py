"""What a run writes besides its checkpoints may fail, is named, and is tried again."""

import errno
from pathlib import Path

import pytest

from pile_lightning.callbacks import Curves, MetricsCsv, Samples, SaveTokenizer
from pile_lightning.callbacks.side_files import SideFiles
from pile_lightning.whole_file import write_file


class Disk:
    """A disk that is full for a while: no file is put in its place."""

    def __init__(self, monkeypatch):
        self.full = True
        replace = Path.replace

        def replace_or_fail(path, target):
            if self.full and "metrics" not in str(target):
                raise OSError(errno.ENOSPC, "No space left on device")
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", replace_or_fail)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def test_what_failed_is_named_and_tried_again(tmp_path, disk):
    files, path = SideFiles(), tmp_path / "a.txt"
    with pytest.warns(UserWarning, match=r"a.txt was not written: No space left on device"):
        files.write(path, lambda: write_file(path, "one"))
    disk.full = False
    files.retry()
    assert path.read_text() == "one"
    path.unlink()
    files.retry()
    assert not path.exists(), "it was written once"


def test_a_full_disk_costs_warnings_and_what_is_missing_comes_later(
    make_trainer, make_model, make_data, validating, tmp_path, disk
):
    data = make_data()
    disk.full = False
    data.prepare_data()
    disk.full = True
    run = tmp_path / "run"

    class Room(Samples):
        def on_validation_end(self, trainer, pl_module):
            disk.full = trainer.global_step < 4
            super().on_validation_end(trainer, pl_module)

    callbacks = [Room(["a"], max_new_tokens=2), SaveTokenizer(), Curves()]
    trainer = make_trainer(*callbacks, **validating, logger=[MetricsCsv(run)])
    with pytest.warns(UserWarning, match="not written") as warned:
        trainer.fit(make_model(), data)
    told = "\n".join(str(each.message) for each in warned)
    for name in ("samples/step-000002.txt", "tokenizer.json", "curves.png"):
        assert f"{name} was not written: No space left" in told
        assert (run / name).stat().st_size > 0
    assert trainer.global_step == 4
    assert not list(run.rglob(".*")), "something half is left"
