"""The mean of kept checkpoints is one more checkpoint; an average goes through any strategy."""

import csv
import os
import shutil
import subprocess
import sys

import pytest
import torch

from pile_lightning.checkpoint import AtomicCheckpointIO, load_whole, read_summary, save_shards
from pile_lightning.cli.average import mean_of_checkpoints
from pile_lightning.cli.runs import newest_checkpoint
from pile_lightning.optim import AVERAGE
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def trained(tmp_path_factory, command_line, small, corpus):
    """A finished run of six steps that kept three of them, and an average beside."""
    folder = tmp_path_factory.mktemp("average")
    command_line(
        "fit",
        *small,
        f"--data.sources={corpus}",
        "--trainer.max_steps=6",
        "--trainer.val_check_interval=3",
        "--kept_checkpoints.every_n_steps=2",
        "--average.decay=0.5",
        cwd=folder,
    )
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "run")


def weights(path):
    return load_whole(path)["state_dict"]


def test_the_mean_is_the_mean_and_is_used_like_any_other(run, tmp_path, command_line):
    folder = run / "checkpoints"
    two = [folder / f"step-0000000{step}.ckpt" for step in (4, 6)]
    save_shards(load_whole(two[0]), two[0])  # a folder, as a sharded run leaves it
    done = command_line("pile", "average", "run", "--last=2", cwd=tmp_path)
    assert "average.ckpt: the mean of steps 4, 6." in done.stdout
    one, other = map(weights, two)
    for name, value in weights(folder / "average.ckpt").items():
        torch.testing.assert_close(value, (one[name] + other[name]) / 2)
        assert value.dtype == torch.float32
    text = ["pile", "generate", "run", "--max_new_tokens=9"]
    by_name = command_line(*text, "--checkpoint=average", cwd=tmp_path).stdout
    by_path = f"--checkpoint={folder / 'average.ckpt'}"
    assert by_name == command_line(*text, by_path, cwd=tmp_path).stdout
    scored = ["validate", "--config=run/config.yaml", "--ckpt_path=average"]
    assert "bits_per_byte" in command_line(*scored, cwd=tmp_path).stdout
    assert "average.ckpt" in command_line("pile", "checkpoints", "run", cwd=tmp_path).stdout


def test_no_run_goes_on_from_a_mean(run, tmp_path, command_line):
    command_line("pile", "average", "run", "mean.ckpt", cwd=tmp_path)
    (tmp_path / "mean.ckpt").rename(run / "checkpoints" / "mean.ckpt")
    assert newest_checkpoint(run).name != "mean.ckpt"
    assert read_summary(run / "checkpoints" / "mean.ckpt")["mean_of"] == [2, 4, 6]


def test_the_mean_of_equal_weights_changes_nothing(run):
    last = run / "checkpoints" / "last.ckpt"
    before, after = weights(last), mean_of_checkpoints([last] * 3)["state_dict"]
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert before.keys() == after.keys()


def test_average_refuses_what_it_cannot_do(run, tmp_path, command_line):
    (tmp_path / "there.ckpt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (["run", "--last=4"], "a mean of last=4 checkpoints is asked for, and run has 3 kept"),
        (["empty"], "empty has 0 kept ones; choose from 2 to that, or keep more"),
        (["run", "there.ckpt"], "there.ckpt exists; remove it, or name another file"),
    ):
        done = command_line("pile", "average", *arguments, cwd=tmp_path, fails=True)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    first, second = sorted((run / "checkpoints").glob("step-*.ckpt"))[:2]
    state = load_whole(second)
    state["state_dict"].popitem()
    AtomicCheckpointIO().save_checkpoint(state, second)
    with pytest.raises(ValueError, match=r"step-00000004.ckpt and .* hold different networks"):
        mean_of_checkpoints([first, second])


def test_the_runs_figures_are_of_the_average_and_beside_it_the_raw(trained):
    with (trained / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/bits_per_byte"]]
    assert [row["step"] for row in rows] == ["3", "6"]
    for row in rows:
        assert row["val_raw/bits_per_byte"]
        assert row["val_raw/bits_per_byte"] != row["val/bits_per_byte"]


SHARDED = "--trainer.strategy=pile_lightning.ShardedStrategy"
WAYS = {
    "ddp": (2, ["--trainer.strategy=ddp"]),
    "fsdp2": (2, [SHARDED]),
    "tensor": (2, [SHARDED, "--trainer.strategy.tensor=2"]),
}


@pytest.fixture
def spread(tmp_path, corpus, cache, small):
    """Train in processes of their own, averaging, and return the last checkpoint and the scores."""

    def run(folder, ranks, *own, steps=8):
        command = [
            sys.executable,
            str(REPOSITORY / "train.py"),
            "fit",
            *small,
            f"--data.sources={corpus}",
            "--trainer.accelerator=cpu",
            "--trainer.precision=32-true",
            f"--trainer.devices={ranks}",
            "--trainer.val_check_interval=4",
            f"--trainer.max_steps={steps}",
            # see test_ranks: what takes the sign of what is all but zero tells the order of sums
            "--model.optimizer=pile_lightning.optim.AdamWConfig",
            "--model.optimizer.eps=0.001",
            "--model.schedule.init_args.warmup=0",
            "--model.schedule.init_args.floor=1",
            "--average.decay=0.7",
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
        with (tmp_path / folder / "metrics.csv").open() as file:
            names = [f"{kind}/bits_per_byte" for kind in ("val", "val_raw")]
            rows = [row for row in csv.DictReader(file) if row["val/bits_per_byte"]]
            scores = [float(row[name]) for row in rows for name in names]
        return load_whole(tmp_path / folder / "checkpoints/last.ckpt"), scores

    return run


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_average_like_one_and_go_on_exactly(way, spread):
    one, scores = spread("one", 1)
    ranks, own = WAYS[way]
    two, their_scores = spread("two", ranks, *own)
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-4, atol=1e-5)
    assert their_scores == pytest.approx(scores, rel=1e-5)
    spread("parts", ranks, *own, steps=4)  # stops where it has just been scored
    parts, resumed_scores = spread("parts", ranks, *own, "--ckpt_path=last")
    assert resumed_scores == their_scores
    for name, value in two["state_dict"].items():
        assert torch.equal(parts["state_dict"][name], value)
    ours, theirs = (each["optimizer_states"][0]["state"] for each in (two, parts))
    assert all(torch.equal(state[AVERAGE], theirs[n][AVERAGE]) for n, state in ours.items())
