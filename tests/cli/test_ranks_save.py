"""Two processes over gloo save in the background, go on by themselves, and meet a full disk."""

import os
import subprocess
import sys

import pytest
import torch

from pile_lightning.checkpoint import read_summary
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.dist]


@pytest.fixture
def fit(tmp_path, corpus, cache, small):
    """Train in processes of their own and return what they printed and their exit status."""

    def run(folder, *own, ranks, steps, limit="unlimited"):
        command = [
            sys.executable,
            str(REPOSITORY / "train.py"),
            "fit",
            *small,
            f"--data.sources={corpus}",
            "--trainer.accelerator=cpu",
            "--trainer.precision=32-true",
            f"--trainer.devices={ranks}",
            "--trainer.strategy=ddp" if ranks > 1 else "--trainer.strategy=auto",
            "--trainer.val_check_interval=2",
            f"--trainer.max_steps={steps}",
            "--last_checkpoint.every_n_steps=2",
            "--model.schedule.init_args.warmup=0",
            "--model.schedule.init_args.floor=1",
            f"--trainer.default_root_dir={folder}",
            "--ckpt_path=auto",
            *own,
        ]
        return subprocess.run(
            ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash", *command],
            cwd=tmp_path,
            env={**os.environ, "PILE_CACHE": str(cache)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_two_ranks_go_on_from_what_was_saved_in_the_background(fit, tmp_path):
    for folder, background, parts in (("whole", "false", [6]), ("parts", "true", [2, 4, 6])):
        for steps in parts:
            setting = f"--checkpoints.background={background}"
            done = fit(folder, setting, ranks=2, steps=steps)
            assert done.returncode == 0, done.stderr
    whole, parts = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("background", ["false", "true"])
def test_two_ranks_on_a_full_disk_train_to_the_end_and_say_so(fit, tmp_path, background):
    setting = f"--checkpoints.background={background}"
    assert fit("run", setting, ranks=2, steps=2).returncode == 0
    last = tmp_path / "run/checkpoints/last.ckpt"
    done = fit("run", setting, ranks=2, steps=6, limit=last.stat().st_size // 1024 // 2)
    assert done.returncode != 0
    assert "last.ckpt was not saved: [Errno 27] File too large" in done.stderr
    assert "the run ended at step 6, which could not be saved" in done.stderr
    assert read_summary(last)["step"] == 2
    assert not list(last.parent.glob(".*"))
    done = fit("run", setting, ranks=2, steps=6)
    assert done.returncode == 0, done.stderr
    assert read_summary(last)["step"] == 6
