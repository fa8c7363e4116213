"""What is printed may be lost; that ends no run, and is told where it can be."""

import errno
import os
import subprocess
import sys

import pytest

from pile_lightning.cli.errors import readable_errors
from pile_lightning.cli.standard_streams import output_lost, steady_streams
from tests.conftest import REPOSITORY

PRINT = """
import os, sys
from pile_lightning.cli.standard_streams import output_lost, steady_streams
with steady_streams():
    file = open(sys.argv[1], "w")
    for _ in range(3):
        print("x" * 100_000, flush=True)
    os.write(1, b"from elsewhere")
    file.write("whole")
    file.close()
    lost = output_lost()
    open(sys.argv[1] + ".lost", "w").write(str(lost and lost.errno))
"""


@pytest.mark.parametrize(
    ("redirect", "number"),
    [("| true", errno.EPIPE), (">/dev/full", errno.ENOSPC), (">&-", errno.EBADF), (">a", None)],
)
def test_a_program_goes_on_without_its_output(tmp_path, redirect, number):
    (tmp_path / "print.py").write_text(PRINT)
    command = f"set -o pipefail; {sys.executable} print.py file {redirect}"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    shell = ["bash", "-c", command]
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "whole"
    assert (tmp_path / "file.lost").read_text() == str(number)
    told = "standard output cannot be written (No space left on device)"
    assert done.stderr.count("\n") == (number == errno.ENOSPC)
    assert (told in done.stderr) == (number == errno.ENOSPC)


def test_streams_are_put_back(capsys):
    before = sys.stdout, sys.stderr
    with steady_streams():
        print("a")
        assert output_lost() is None
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "a\n"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("Too many open files (24)"),
    ],
)
def test_too_many_open_files_is_one_line_with_the_remedy(capsys, error):
    with pytest.raises(SystemExit) as leaving, readable_errors():
        raise error
    assert leaving.value.code == 2
    assert "ulimit -n 4096" in capsys.readouterr().err
