"""What a process is told to do with memory, it does."""

import subprocess
import sys

import pytest

from pile_lightning.device import keep_freed_memory

COUNT = """
import resource, sys, torch
from pile_lightning.device import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for step in range(12):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2**21) for _ in range(4)]  # 8 MB each
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_memory_that_is_kept_comes_without_fresh_pages():
    fresh, kept = (
        int(
            subprocess.run(
                [sys.executable, "-c", COUNT, how], capture_output=True, check=True
            ).stdout
        )
        for how in ("give", "keep")
    )
    assert kept < 1000
    assert fresh > 40_000  # of the 10 x 4 x 2048 pages that were asked for


def test_another_c_library_is_left_alone(monkeypatch):
    keep_freed_memory.cache_clear()
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
    keep_freed_memory.cache_clear()
