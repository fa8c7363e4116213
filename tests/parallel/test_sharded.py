"""A network that is spread over ranks is the one of a single process, however it is spread."""

import json
import os
import subprocess
import sys

import pytest

from pile_lightning.parallel import Layout, ShardedStrategy
from tests.conftest import REPOSITORY


def on_four_ranks(*arguments):
    done = subprocess.run(
        [
            *[sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=4", "--standalone"],
            str(REPOSITORY / "tests/parallel/on_four_ranks.py"),
            *arguments,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def check(cases):
    for case in cases:
        if "recompute" in case:
            assert case["gradients"] == 0, case
            continue
        assert case["drawn"] == 0, case
        assert case["trained"] < 1e-6, case
        assert case["norm"] < 1e-6, case
        assert case["logits"] < 1e-5, case
        # what a rank holds: its part of all, and of what tensor-parallel peers do not split more
        assert case["share"] < (0.3 if case["layout"] == "shard 4" else 0.7), case


@pytest.mark.slow
@pytest.mark.dist
def test_spread_over_ranks_it_starts_and_trains_as_in_one_process():
    *cases, odd = on_four_ranks()
    assert len(cases) == 9
    check(cases)
    assert "Forgetful.reset_parameters leaves more.weight without a value; let it" in odd["said"]
    assert odd["mask"] == 10  # what a constructor computes is there


@pytest.mark.dist
@pytest.mark.slow
def test_every_network_in_every_layout_with_every_optimizer():
    *cases, _ = on_four_ranks("all")
    assert len(cases) == 36
    check(cases)


def test_the_ranks_that_are_left_over_are_sharded_over(monkeypatch):
    assert ShardedStrategy(tensor=2, num_ranks=8).layout == Layout(shard=4, tensor=2)
    monkeypatch.setenv("WORLD_SIZE", "12")
    assert ShardedStrategy(replicate=2, tensor=3).layout == Layout(replicate=2, shard=2, tensor=3)


def test_ranks_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="6 ranks are not a multiple of replicate=2 x tensor=2"):
        ShardedStrategy(replicate=2, tensor=2, num_ranks=6)
    with pytest.raises(ValueError, match="tensor=0 ranks; choose at least 1"):
        ShardedStrategy(shard=2, tensor=0)


def test_an_unknown_number_of_ranks_is_asked_for(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    with pytest.raises(ValueError, match="how many there are is not known here; give shard"):
        ShardedStrategy()
