"""Training steps of several small models: one model after another, and stacked into one.

    python tests/benchmarks/stacking.py
    python tests/benchmarks/stacking.py --compile --precision bf16 --optimizer muon
    python tests/benchmarks/stacking.py --sizes 64x2 --members 8 --threads 2

A step is forward, backward and optimizer of every member, on one batch that they share. Both ways
run in turn, on copies of the same members. Tokens are those that all members read, a second of the
process's CPU time with one thread, a second on the clock with more. A ratio is the median of the
rounds': the machine drifts, and a round drifts less.
"""

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from pile_lightning import CausalLM, DecoderConfig  # noqa: E402
from pile_lightning.device import keep_freed_memory  # noqa: E402
from pile_lightning.modules.stacked import Stack  # noqa: E402
from pile_lightning.nn import AttentionConfig  # noqa: E402
from pile_lightning.optim import AdamWConfig, MuonConfig, step_together  # noqa: E402
from tests.benchmarks.systems.clocks import process_seconds, wall_seconds  # noqa: E402

VOCAB = 512
OPTIMIZERS = {"adamw": AdamWConfig(lr=1e-4), "muon": MuonConfig(lr=1e-4)}


def make_batch(rows: int, seq: int, *, packed: bool) -> dict[str, Tensor | None]:
    """Return random tokens, each row one document or two."""
    ids = torch.randint(VOCAB, (rows, seq + 1), generator=torch.Generator().manual_seed(0))
    documents = (torch.arange(seq) >= seq // 2).long().repeat(rows, 1)
    positions = torch.arange(seq) - seq // 2 * documents
    return {
        "input_ids": ids[:, :-1],
        "labels": ids[:, 1:].contiguous(),
        "position_ids": positions if packed else None,
        "document_ids": documents if packed else None,
    }


def make_members(size: str, count: int, *, seq: int, compile: bool) -> list[CausalLM]:
    """Return built models, ``128x4`` being four layers of width 128."""
    width, layers = map(int, size.split("x"))
    config = DecoderConfig(
        d_model=width, num_layers=layers, attention=AttentionConfig(num_heads=max(2, width // 64))
    )
    members = []
    for seed in range(count):
        torch.manual_seed(seed)
        members.append(CausalLM(config, vocab_size=VOCAB, max_seq_len=seq, compile=compile))
        members[-1].configure_model()
    return members


def make_ways(
    size: str, count: int, batch: dict[str, Tensor | None], settings: argparse.Namespace
) -> dict[str, Callable[[], None]]:
    """Return a step in each of the two ways."""
    config = OPTIMIZERS[settings.optimizer]
    num_tokens = settings.rows * settings.seq
    alone, stacked = (
        make_members(size, count, seq=settings.seq, compile=settings.compile) for _ in range(2)
    )
    stack = Stack(stacked, compile=settings.compile)
    own, shared = ([config.build(m.built_network) for m in each] for each in (alone, stacked))
    narrow = torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16")

    def one_after_another() -> None:
        for member, optimizer in zip(alone, own, strict=True):
            with narrow:
                loss = member.loss_sum(batch)
            (loss / num_tokens).backward()
            optimizer.step()
            optimizer.zero_grad()

    def as_one() -> None:
        with narrow:
            losses = stack(lambda member: member.loss_sum(batch))
        (losses / num_tokens).sum().backward()
        step_together(shared)
        for optimizer in shared:
            optimizer.zero_grad()

    return {"one after another": one_after_another, "as one": as_one}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["64x2", "128x4", "256x4"])
    parser.add_argument("--members", nargs="+", type=int, default=[2, 8, 16])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--seq", type=int, default=64)
    parser.add_argument("--packed", action="store_true", help="two documents a row")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--keep-memory", action="store_true", help="see device.keep_freed_memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    settings = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(settings.threads)
    if settings.keep_memory and not keep_freed_memory():
        raise SystemExit("--keep-memory: this C library cannot be told to keep what is freed")
    clock = process_seconds if settings.threads == 1 else wall_seconds
    batch = make_batch(settings.rows, settings.seq, packed=settings.packed)
    print(
        f"{settings.rows} rows of {settings.seq}, {settings.optimizer}, {settings.precision}, "
        f"{'compiled' if settings.compile else 'eager'}, {settings.threads} thread(s)\n\n"
        f"| size | members | one after another, tokens/s | as one, tokens/s | times as fast |\n"
        f"|---|---|---|---|---|"
    )
    for size in settings.sizes:
        for count in settings.members:
            ways = make_ways(size, count, batch, settings)
            for way in ways.values():
                for _ in range(2):
                    way()
            rounds = [[clock(way) for way in ways.values()] for _ in range(settings.rounds)]
            num_tokens = count * settings.rows * settings.seq
            loop, stacked = (
                num_tokens / statistics.median(each) for each in zip(*rounds, strict=True)
            )
            ratio = statistics.median(a / b for a, b in rounds)
            print(f"| {size} | {count} | {loop:,.0f} | {stacked:,.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
