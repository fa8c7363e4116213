"""The memory that ``pile plan`` tells, beside what real training steps allocate.

    python tests/benchmarks/plan_memory.py
    python tests/benchmarks/plan_memory.py --shard 8
    torchrun --nproc_per_node 2 tests/benchmarks/plan_memory.py --ddp

Three steps of the Trainer run under torch's profiler, whose records of the allocator give the bytes
of all tensors, those within kernels included; a plan sees sizes alone. ``--shard`` runs FSDP2 among
so many ranks of which one is real: its collectives are done at once and move nothing, so that what
is whole at which moment is the same each time. (Over gloo it depends on how far the thread that
sums lags behind: the peak of one setting came out as 88 and as 100 MB.) ``--ddp`` wants torchrun.
"""

import argparse
import gc
import itertools
import logging
import os
import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from pile_lightning import CausalLM
from pile_lightning.nn import (
    AttentionConfig,
    DecoderConfig,
    FeedForwardConfig,
    PileConfig,
    TablesConfig,
)
from pile_lightning.optim import AdamWConfig, MuonConfig
from pile_lightning.parallel import RECOMPUTE, Layout, recompute_blocks
from pile_lightning.plan import Gathering, Precision, rank_memory
from tests.plan.measuring import (
    SEQ,
    VOCAB,
    Measured,
    live_at,
    measure,
    parts_of,
    predict,
    random_batch,
)

WIDTH, LAYERS = 128, 4
NETWORKS = {
    "default": DecoderConfig(d_model=WIDTH, num_layers=LAYERS),
    "gated GQA": DecoderConfig(
        d_model=WIDTH,
        num_layers=LAYERS,
        attention=AttentionConfig(num_heads=8, num_kv_heads=2),
        feed_forward=FeedForwardConfig(activation="silu", gated=True),
    ),
    "tables": DecoderConfig(d_model=WIDTH, num_layers=LAYERS, tables=TablesConfig()),
    "untied": DecoderConfig(d_model=WIDTH, num_layers=LAYERS, tie_embeddings=False),
    "pile": PileConfig(d_model=WIDTH, num_layers=LAYERS // 2),
}
OPTIMIZERS = {"AdamW": AdamWConfig(), "Muon": MuonConfig()}
PRECISIONS = ("32-true", "bf16-mixed")


def report(name: str, told: Measured, real: Measured) -> float:
    """Print a line: predicted / measured MB and the ratio of each part; return the peak's."""
    cells = []
    for part in Measured._fields:
        predicted, measured = getattr(told, part), getattr(real, part)
        cells.append(f"{predicted / 1e6:7.1f} /{measured / 1e6:7.1f} {predicted / measured:6.3f}")
    print(f"{name:<46}{' '.join(f'{cell:>24}' for cell in cells)}", flush=True)
    return told.peak / real.peak


def one_device() -> None:
    """Compare all settings on one device."""
    ratios = []
    for (name, network), (kind, optimizer), precision, keeps in itertools.product(
        NETWORKS.items(), OPTIMIZERS.items(), PRECISIONS, RECOMPUTE
    ):
        accumulate = 2 if kind == "AdamW" else 1
        settings = {"precision": precision, "checkpointing": keeps, "accumulate": accumulate}
        real = measure(network, optimizer, **settings)
        profile = predict(network, optimizer, **settings)
        told = parts_of(profile, rank_memory(profile, Layout()).peak)
        line = f"{name}, {kind}, {precision}, {keeps}, x{accumulate}"
        ratios.append(report(line, told, real))
    conclude(ratios)


def ddp() -> None:
    """Compare the peak of DDP's rank 0; started by torchrun."""
    ranks = int(os.environ["WORLD_SIZE"])
    ratios = []
    for (name, network), precision, keeps in itertools.product(
        NETWORKS.items(), PRECISIONS, RECOMPUTE
    ):
        settings = {"precision": precision, "checkpointing": keeps}
        optimizer = OPTIMIZERS["Muon"]
        # the lower of two: gloo's threads release the buckets, at times where no record sees it
        peaks = [
            measure(network, optimizer, **settings, strategy="ddp", devices=ranks).peak
            for _ in range(2)
        ]
        profile = predict(network, optimizer, **settings)
        told = rank_memory(profile, Layout(replicate=ranks)).peak
        if os.environ["RANK"] == "0":
            line = f"ddp {ranks}, {name}, {precision}, {keeps}"
            ratios.append(report_peak(line, told, min(peaks)))
    if ratios:
        conclude(ratios)


def sharded(ranks: int) -> None:
    """Compare the peak of the first of so many FSDP2 ranks, the others of which are not there."""
    from torch.distributed import init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    mesh = init_device_mesh("cpu", (ranks,))
    ratios = []
    for (name, network), precision, keeps in itertools.product(
        NETWORKS.items(), PRECISIONS, RECOMPUTE
    ):
        if name == "pile":  # its `blocks` are another list each time
            continue
        profile = predict(network, AdamWConfig(), precision=precision, checkpointing=keeps)
        mixed = precision == "bf16-mixed"
        gathering = Gathering(itemsize=2 if mixed else None, waiting=0)
        told = rank_memory(profile, Layout(shard=ranks), gathering=gathering).peak
        real = sharded_peak(network, Precision.of(precision), keeps, mesh)
        ratios.append(report_peak(f"FSDP2 {ranks}, {name}, {precision}, {keeps}", told, real))
    conclude(ratios)


def sharded_peak(network: object, precision: Precision, keeps: str, mesh: object) -> int:
    """Take three steps, in the Trainer's order, and return the peak of the last two."""
    from torch.distributed.fsdp import (
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )
    from torch.profiler import ProfilerActivity, profile, record_function

    policy = MixedPrecisionPolicy(
        param_dtype=precision.products,
        reduce_dtype=torch.float32 if precision.products else None,
        cast_forward_inputs=False,
    )
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as records:
        module = CausalLM(network, vocab_size=VOCAB, max_seq_len=SEQ)
        built = module.built_network
        recompute_blocks(built, keeps)
        for block in built.blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(built, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        register_fsdp_forward_method(built, "hidden")
        optimizer, batch = AdamWConfig().build(built), random_batch()
        for _ in range(3):
            with precision.active():
                loss = module.loss_sum(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with record_function("stepped"):
                pass
    return live_at(records, "", after="stepped")[1]


def report_peak(name: str, told: int, real: int) -> float:
    """Print a line and return the ratio."""
    print(f"{name:<46}{told / 1e6:10.1f} /{real / 1e6:10.1f}{told / real:8.3f}", flush=True)
    return told / real


def conclude(ratios: list[float]) -> None:
    """Print the extremes."""
    print(f"{len(ratios)} peaks, predicted / measured: {min(ratios):.3f} to {max(ratios):.3f}")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shard", type=int, default=0, help="FSDP2 ranks, of which one is real")
    parser.add_argument("--ddp", action="store_true", help="under torchrun")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    columns = " ".join(f"{part:>24}" for part in Measured._fields)
    if arguments.shard:
        print(f"{'MB, predicted / measured, ratio of the peak':<46}")
        sharded(arguments.shard)
    elif arguments.ddp:
        ddp()
    else:
        print(f"{'MB, predicted / measured, ratio':<46}{columns}")
        one_device()


if __name__ == "__main__":
    main()
