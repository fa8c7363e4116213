"""Runs that are killed."""

import os
import signal
import subprocess
import sys
import time

import torch

from tests.conftest import REPOSITORY


def kill_after_a_save(arguments, checkpoint, *, cwd, cache):
    """Start ``train.py``, kill it soon after its first checkpoint, and return that one's step."""
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), *arguments],
        cwd=cwd,
        env={**os.environ, "PILE_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return torch.load(checkpoint, weights_only=True)["global_step"]
