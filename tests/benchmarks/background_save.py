"""How long a save stops training: in the background, in the foreground, and the copy alone.

python tests/benchmarks/background_save.py --mb 400 --rounds 5
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from pile_lightning.checkpoint import AtomicCheckpointIO
from pile_lightning.checkpoint.tree import copy_to_memory

TENSORS = 100


def measure(function, after=lambda: None):
    """Milliseconds that a call takes, without what is to be done after it."""
    began = time.perf_counter()
    function()
    taken = time.perf_counter() - began
    after()
    return 1e3 * taken


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=400, help="Size of the state.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="Where to save; a temporary folder by default.")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    size = settings.mb * 10**6 // 4 // TENSORS
    state = {
        "global_step": 1,
        "state_dict": {f"weight.{n}": torch.randn(size) for n in range(TENSORS)},
    }
    times = {}
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        path = Path(folder, "last.ckpt")
        front, back = AtomicCheckpointIO(), AtomicCheckpointIO(background=True)
        for _ in range(settings.rounds):  # in turn: the machine's mood is shared
            for name, function, after in (
                ("copy of the state", lambda: copy_to_memory(state), lambda: None),
                ("file, background", lambda: back.save_checkpoint(state, path), back.wait),
                ("file, foreground", lambda: front.save_checkpoint(state, path), lambda: None),
                ("folder, background", lambda: back.save_shards(state, path), back.wait),
                ("folder, foreground", lambda: front.save_shards(state, path), lambda: None),
            ):
                times.setdefault(name, []).append(measure(function, after))
        back.teardown()
    print(f"{settings.mb} MB, one thread, median (least to most) of {settings.rounds}, ms")
    for name, taken in times.items():
        print(
            f"  {name:<20} {statistics.median(taken):8.1f}  ({min(taken):.1f} to {max(taken):.1f})"
        )


if __name__ == "__main__":
    main()
