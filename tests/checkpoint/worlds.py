"""Real gloo processes in which one test after another may use as many ranks as it likes."""

import contextlib
import datetime
import os
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# one process imports the package, and those of all tests are its children
context = mp.get_context("forkserver")
context.set_forkserver_preload(["pile_lightning.cli", "torch.distributed.fsdp"])


def in_ranks(function, folder, *arguments, processes):
    """Run ``function(rank, folder, *arguments)`` in processes; an error in one is raised here."""
    failures = context.Queue()
    workers = [
        context.Process(target=_enter, args=(rank, failures, function, folder, *arguments))
        for rank in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=240)
        if worker.exitcode is None:
            worker.kill()
    if not failures.empty():
        raise AssertionError(failures.get())
    assert all(worker.exitcode == 0 for worker in workers)


def _enter(rank, failures, function, folder, *arguments):
    torch.set_num_threads(1)
    try:
        function(rank, folder, *arguments)
    except BaseException:
        failures.put(f"rank {rank}: {traceback.format_exc()}")
        raise


def as_one_of_two(rank, port):
    """Let this process be one of two that torchrun has started on this machine."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }


@contextlib.contextmanager
def world(folder, name, rank, size):
    """A process group of the first ``size`` ranks, yielding whether this one is in it."""
    if rank >= size:
        yield False
        return
    store = dist.FileStore(str(Path(folder, f"{name}.store")), size)
    timeout = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    try:
        yield True
    finally:
        dist.destroy_process_group()
