"""Ranks that tests signal, kill and hang: forked, so that no time goes into imports."""

import multiprocessing
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.probe import events


@dataclass
class Ranks:
    """Processes over gloo that run ``fit`` in a folder."""

    folder: Path
    fit: Callable[..., None]
    ranks: int = 2
    processes: list[Any] = field(default_factory=list)

    def start(self, **settings):
        """Start it, or go on."""
        self.folder.mkdir(exist_ok=True)
        self.begun = [len(events(self.folder, rank)) for rank in range(self.ranks)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # as torchrun has it
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": self.ranks}
        shared |= {"TORCHELASTIC_RUN_ID": "test", "LOCAL_WORLD_SIZE": self.ranks, "GROUP_RANK": 0}
        fork = multiprocessing.get_context("fork")
        self.processes = [
            fork.Process(
                target=self._be, args=(shared | {"RANK": rank, "LOCAL_RANK": rank}, settings)
            )
            for rank in range(self.ranks)
        ]
        for process in self.processes:
            process.start()
        return self

    @property
    def pids(self):
        """Process of each rank."""
        return [process.pid for process in self.processes]

    def wait_for(self, event, *, times=1, rank=0, seconds=60):
        """Wait until a rank has done something so often since the last start."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            new = events(self.folder, rank)[self.begun[rank] :]
            if sum(what == event for _, what, _ in new) >= times:
                return
            assert self.processes[rank].is_alive(), self.said()
            time.sleep(0.002)
        raise AssertionError(f"no {event} within {seconds} s: {self.said()}")

    def finish(self, seconds=60):
        """Wait for the end, and return the exit code of each rank."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        late = [process.pid for process in self.processes if process.is_alive()]
        self.end()
        assert not late, f"processes {late} had not ended after {seconds} s: {self.said()}"
        return [process.exitcode for process in self.processes]

    def end(self):
        """Leave nothing running."""
        for process in self.processes:
            if process.is_alive():
                process.kill()
                process.join()

    def said(self):
        """Return what it printed."""
        logs = sorted(self.folder.glob("rank-*.log"))
        return "\n".join(log.read_text(errors="replace")[-20_000:] for log in logs)

    def _be(self, environment, settings):
        os.setpgrp()  # with its loader workers a group, as a task of a cluster
        log = os.open(
            self.folder / f"rank-{environment['RANK']}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT
        )
        os.dup2(log, 1)
        os.dup2(log, 2)
        # not those of pytest, which capture
        sys.stdout = os.fdopen(1, "w", buffering=1)
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1)
        os.environ.update({name: str(value) for name, value in environment.items()})
        warnings.simplefilter("default")
        self.fit(self.folder, **settings)
