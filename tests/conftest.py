"""Settings and helpers that all tests share."""

import contextlib
import io
import os
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from pile_lightning.cli import main, train

REPOSITORY = Path(__file__).parents[1]

# processes that tests start find the tests' own modules by it
sys.path.append(str(REPOSITORY))

# one thread: sums in one order, and no fight over cores with whatever else the machine does
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# a name that nobody has is looked up on this machine, not in the network with a minute of retries
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of real text: a small part of the standard library, as .py files."""
    source = Path(os.__file__).parent
    folder = tmp_path_factory.mktemp("corpus")
    for package in ("json", "email", "urllib"):
        for path in sorted((source / package).glob("*.py")):
            (folder / f"{package}_{path.name}").write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder for prepared stores that the session's runs share."""
    return tmp_path_factory.mktemp("cache")


class Finished(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def command_line(cache):
    """Run a command of the package as a user does, from the folder ``cwd``.

    In this process, which saves the ten seconds that importing torch and Lightning takes; what a
    process of its own shows is tested where it matters.
    """

    def run(*arguments, cwd, fails=False):
        program = "pile" if arguments[0] == "pile" else "train.py"
        argv = [program, *map(str, arguments[program == "pile" :])]
        out, err = io.StringIO(), io.StringIO()
        code = 0
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")  # shown on stderr, as in a process of its own
            patch.chdir(cwd)
            patch.syspath_prepend(str(cwd))
            patch.setenv("PILE_CACHE", str(cache))
            patch.setattr(sys, "argv", argv)
            try:
                main() if program == "pile" else train()
            except SystemExit as leaving:
                code = leaving.code or 0
            finally:
                sys.modules.pop("mine", None)
        said = f"{out.getvalue()}\n{err.getvalue()}"
        assert (code != 0) == fails, said
        return Finished(out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def small():
    """Arguments of a run of seconds: a tiny network on a byte vocabulary."""
    return [
        "--config",
        str(REPOSITORY / "configs" / "quickstart.yaml"),
        "--model.compile=false",
        "--model.network.d_model=32",
        "--model.network.num_layers=1",
        "--data.tokenizer=byte",
        "--data.seq_len=64",
        "--data.batch_size=8",
        "--data.short_rows=null",
        "--data.val_stride=64",
        "--data.val_fraction=0.2",
        "--trainer.log_every_n_steps=2",
        "--trainer.limit_val_batches=3",
        "--trainer.default_root_dir=run",
        "--samples.max_new_tokens=8",
    ]
