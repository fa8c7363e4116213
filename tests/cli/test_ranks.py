"""Two processes over gloo train like one, and go on as another number of them."""

import os
import subprocess
import sys

import pytest
import torch

from pile_lightning.callbacks import read_metrics
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.dist]


@pytest.fixture
def fit(tmp_path, corpus, cache, small):
    """Train in processes of their own, in the folder that is named."""

    def run(folder, *own, ranks, steps, accumulate=1):
        command = [
            sys.executable,
            str(REPOSITORY / "train.py"),
            "fit",
            *[argument for argument in small if "limit_val" not in argument],
            f"--data.sources={corpus}",
            "--trainer.accelerator=cpu",
            "--trainer.precision=32-true",
            f"--trainer.devices={ranks}",
            "--trainer.strategy=ddp" if ranks > 1 else "--trainer.strategy=auto",
            f"--trainer.accumulate_grad_batches={accumulate}",
            f"--trainer.val_check_interval={5 * accumulate}",
            f"--trainer.max_steps={steps}",
            # not Muon, nor AdamW with a small eps: both take the sign of what is all but zero, and
            # so make something of the last digit in which sums of two orders differ
            "--model.optimizer=pile_lightning.optim.AdamWConfig",
            "--model.optimizer.eps=0.001",
            "--model.schedule.init_args.warmup=0",
            "--model.schedule.init_args.floor=1",  # the same whatever the last step is
            f"--trainer.default_root_dir={folder}",
            *own,
        ]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PILE_CACHE": str(cache)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        checkpoint = tmp_path / folder / "checkpoints/last.ckpt"
        return torch.load(checkpoint, weights_only=True), read_metrics(
            tmp_path / folder / "metrics.csv"
        )

    return run


def assert_same_run(one, two):
    (one, metrics_of_one), (two, metrics_of_two) = one, two
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-4, atol=1e-5)
    for alone, both in zip(metrics_of_one, metrics_of_two, strict=True):
        assert alone.keys() == both.keys()
        for name in {"step", "train/loss", "val/loss", "val/bits_per_byte"} & alone.keys():
            assert alone[name] == pytest.approx(both[name], rel=1e-5)


DATA = {
    "TextData": ["--data=pile_lightning.TextData"],
    "StreamedText": ["--data=pile_lightning.StreamedText", "--data.num_lanes=8"],
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("data", DATA)
def test_two_ranks_are_one_process(data, accumulate, fit):
    assert_same_run(
        fit("one", *DATA[data], ranks=1, steps=10, accumulate=accumulate),
        fit("two", *DATA[data], ranks=2, steps=10, accumulate=accumulate),
    )


@pytest.mark.parametrize("data", DATA)
def test_a_run_goes_on_with_another_number_of_ranks_and_workers(data, fit):
    own = DATA[data]
    whole = fit("whole", *own, ranks=1, steps=15)
    fit("parts", *own, ranks=4, steps=4)
    fit("parts", *own, "--data.num_workers=3", "--ckpt_path=last", ranks=1, steps=9)
    parts = fit("parts", *own, "--ckpt_path=last", ranks=2, steps=15, accumulate=2)
    state, its_state = whole[0][data], parts[0][data]
    assert state["rows"] == its_state["rows"] == 15 * 8
    if data == "StreamedText":  # where every lane of every rank is
        assert torch.equal(state["cursors"], its_state["cursors"])
        assert state["cursors"].numel() * 8 < 100_000
    for name, value in whole[0]["state_dict"].items():
        torch.testing.assert_close(parts[0]["state_dict"][name], value, rtol=1e-4, atol=1e-5)
