"""Two processes over gloo train like one."""

import os
import subprocess
import sys

import pytest
import torch

from pile_lightning.callbacks import read_metrics
from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ranks_are_one_process(accumulate, tmp_path, corpus, cache, small):
    for ranks in (1, 2):
        command = [
            sys.executable,
            str(REPOSITORY / "train.py"),
            "fit",
            *[argument for argument in small if "limit_val" not in argument],
            f"--data.sources={corpus}",
            "--trainer.accelerator=cpu",
            f"--trainer.devices={ranks}",
            "--trainer.strategy=ddp" if ranks > 1 else "--trainer.strategy=auto",
            f"--trainer.accumulate_grad_batches={accumulate}",
            f"--trainer.val_check_interval={5 * accumulate}",
            "--trainer.max_steps=10",
            f"--trainer.default_root_dir=ranks{ranks}",
        ]
        environment = {**os.environ, "PILE_CACHE": str(cache)}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    one, two = (
        torch.load(tmp_path / f"ranks{n}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for n in (1, 2)
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
    for alone, both in zip(
        read_metrics(tmp_path / "ranks1/metrics.csv"),
        read_metrics(tmp_path / "ranks2/metrics.csv"),
        strict=True,
    ):
        assert alone.keys() == both.keys()
        for name in {"step", "train/loss", "val/loss", "val/bits_per_byte"} & alone.keys():
            assert alone[name] == pytest.approx(both[name], rel=1e-5)
