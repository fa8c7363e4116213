"""A network that is spread over ranks generates what it does in one process."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.dist
def test_two_ranks_generate_as_one():
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [sys.executable, *launcher, str(REPOSITORY / "tests/parallel/generating_ranks.py")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    cases = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(cases) == 4
    for case in cases:
        assert case["same"], case
        assert "spread over ranks, and its weights cannot be laid out anew" in case["said"]
