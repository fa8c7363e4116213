"""The search for the best setting on a GPU, on made-up trials, and one trial on the CPU."""

import argparse
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.benchmarks import gpu
from tests.benchmarks.quality.records import Records
from tests.benchmarks.systems import all_systems


@pytest.fixture
def ours():
    return gpu.with_all_modes(all_systems(gpu.SIZES["tiny"])[0])


@pytest.fixture
def search(tmp_path, monkeypatch):
    """A search whose trials take the time that a function of mode and rows says."""

    def make(seconds):
        arguments = argparse.Namespace(device="cpu", most_rows=16, steps=1, limit=60, modes=None)
        found = gpu.Search(Records(tmp_path / "found.jsonl"), arguments)
        found.ran = []

        def run(key):
            found.ran.append((key["mode"], key["rows"]))
            time = seconds(key["mode"], key["rows"])
            return {"failed": "out of memory"} if time is None else {"seconds": time}

        monkeypatch.setattr(found, "_run", run)
        return found

    return make


def test_rows_grow_until_memory_ends_and_recomputing_may_win(search, ours):
    def seconds(mode, rows):
        if mode == "compiled":
            return None if rows > 4 else 1 + rows
        return 0.5 + 1.05 * rows if "selective" in mode else 2.0 * rows

    tried = search(seconds)
    mode, rows, _ = tried.best("tiny", ours)
    assert (mode, rows) == ("compiled, selective recomputing", 16)
    assert ("compiled", 8) in tried.ran
    assert ("compiled", 16) not in tried.ran  # memory ended at 8
    assert ("compiled, full recomputing", 4) not in tried.ran  # two rows were no faster than one
    before = len(tried.ran)
    assert tried.best("tiny", ours)[:2] == (mode, rows)
    assert len(tried.ran) == before  # all is remembered


def test_where_nothing_ran_the_table_says_so(search, ours):
    best = search(lambda mode, rows: None).best("tiny", ours)
    assert best is None
    assert "not yet measured" in gpu.row("tiny", ours, best)


def test_a_trial_counts_time_memory_and_parameters(ours):
    size = replace(gpu.SIZES["tiny"], batch_size=2)
    system = replace(ours, modes=all_systems(size)[0].modes)
    found = gpu.trial(size, system, "eager", torch.device("cpu"), steps=1)
    assert found["seconds"] > 0
    assert found["bytes"] > 0
    assert found["parameters"] == 64 * 32 + 32 + 4 * 32**2 + 3 * 32 * 80 + 2 * 32
    best = "eager", 2, found
    assert "| eager | 2 |" in gpu.row("tiny", ours, best)


def test_a_trial_that_breaks_is_told_and_does_not_end_the_search(search, ours, monkeypatch):
    tried = search(lambda mode, rows: None)
    run = gpu.Search._run
    broken = subprocess.CompletedProcess([], 1, "", "Traceback\nOutOfMemoryError: CUDA")
    monkeypatch.setattr(gpu.subprocess, "run", lambda *_, **__: broken)
    assert run(tried, {"rows": 1}) == {"failed": "OutOfMemoryError: CUDA"}

    def late(*_, **__):
        raise subprocess.TimeoutExpired([], 60)

    monkeypatch.setattr(gpu.subprocess, "run", late)
    assert run(tried, {"rows": 1}) == {"failed": "not done in 60 s"}


def test_without_a_gpu_it_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "there is no GPU here; --device cpu --sizes tiny" in capsys.readouterr().err
