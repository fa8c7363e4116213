import contextlib
import os
from pathlib import Path

import pytest

from pile_lightning.whole_file import partial, replace_file, write_file


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    write_file(tmp_path / "a.txt", "é\n")
    write_file(tmp_path / "a.txt", b"two")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"two"


def test_an_error_in_the_block_leaves_what_was_there(tmp_path):
    target = tmp_path / "a.txt"
    write_file(target, "one")
    with contextlib.suppress(KeyboardInterrupt), replace_file(target, "w") as file:
        file.write("two")
        raise KeyboardInterrupt
    assert target.read_text() == "one"
    assert not partial(target).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    write_file(target, "one")
    monkeypatch.setattr("pile_lightning.whole_file.partial", lambda path: Path("/dev/full"))
    monkeypatch.setattr(Path, "unlink", lambda self: None)
    with pytest.raises(OSError, match=r"No space left on device: '.*a.txt'"):
        write_file(target, "two" * 100_000)
    assert target.read_text() == "one"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    write_file(tmp_path / "real/a.txt", "one")
    (tmp_path / "a.txt").symlink_to(tmp_path / "real/a.txt")
    write_file(tmp_path / "a.txt", "two")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "real/a.txt").read_text() == "two"


def test_a_pipe_is_written_to_directly(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / "pipe", "one")
    assert os.read(reader, 10) == b"one"
    os.close(reader)
