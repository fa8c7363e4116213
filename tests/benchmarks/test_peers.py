"""The benchmark of training steps runs, in a tiny form, and on any device that has a clock."""

import sys
from functools import partial

import pytest
import torch

from tests.benchmarks import head_loss, peers
from tests.benchmarks.systems import SIZES, all_systems
from tests.benchmarks.systems.clocks import device_seconds


def test_it_prints_a_line_for_each_that_is_there_and_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "litgpt", None)
    arguments = ["--size=tiny", "--rounds=1", "--steps=1", "--mode=eager", "--no-memory"]
    names = ["--only", "ours", "nanoGPT", "litgpt"]
    monkeypatch.setattr(sys, "argv", ["peers.py", *arguments, *names])
    peers.main()
    out = capsys.readouterr().out
    assert "litgpt is missing: " in out
    for name in ("ours as Llama", "ours (", "ours, Muon", "nanoGPT-like"):
        assert f"| {name}" in out
    assert "torchtitan" not in out


class Mark:
    """An event of a device whose every step takes three milliseconds."""

    def __init__(self, now):
        self.now = now

    def record(self):
        self.at = self.now[0]
        self.now[0] += 3

    def synchronize(self):
        self.now.append("waited")

    def elapsed_time(self, other):
        return other.at - self.at


def test_a_device_is_timed_by_its_own_events_and_waited_for_once():
    now = [0]
    clock = partial(device_seconds, make_event=lambda: Mark(now))
    size = SIZES["tiny"]
    setting = peers.Setting(size, "bf16", torch.device("cpu"))
    ours = all_systems(size)[0]
    (line,) = peers.contenders(ours, setting, clock, tries=1, modes="eager")
    del now[1:]
    peers.measure([line], setting, clock, rounds=1, steps=2)
    assert line.seconds == [pytest.approx(0.0015)]
    assert now[1:] == ["waited"] * 4  # three products and the steps of the round


def test_the_ways_of_head_and_loss_agree(monkeypatch, capsys):
    monkeypatch.setattr(head_loss, "memory_apart", lambda name: 0)
    arguments = [
        "--rows=512",
        "--width=16",
        "--vocab=64",
        "--precision=fp32",
        "--rounds=1",
        "--eager",
    ]
    monkeypatch.setattr(sys, "argv", ["head_loss.py", *arguments])
    head_loss.main()
    lines = capsys.readouterr().out.splitlines()[4:]
    assert len(lines) >= 2
    assert all(abs(float(line.split("|")[4])) < 1e-5 for line in lines)


def test_a_system_is_shown_in_the_mode_that_the_rounds_find_fastest():
    first, second, *_ = all_systems(SIZES["tiny"])
    lines = [
        peers.Line(system, mode, None, 0.0, seconds)
        for system, mode, seconds in (
            (first, "eager", [1.0, 9.0, 9.0]),
            (first, "compiled", [5.0, 5.0, 5.0]),
            (second, "eager", [2.0, 2.0, 2.0]),
        )
    ]
    found = [(line.system.name, line.mode) for line in peers.fastest_modes(lines)]
    assert found == [(first.name, "compiled"), (second.name, "eager")]
