"""Find the best learning rate on a narrow network, and see whether it is the best on a wide one.

    python tests/benchmarks/width_transfer.py               # Muon and AdamW, with and without rule
    python tests/benchmarks/width_transfer.py --widths 64 128 256 512 --steps 400

Each network trains on the standard library with all learning rates times 2^k, and is scored on
held-out text. With ``base_width`` the best k of the narrow network should be that of the wide one,
or beside it.
"""

import argparse
import logging
import warnings
from dataclasses import replace

import torch
from lightning import Trainer, seed_everything
from tqdm import tqdm

from pile_lightning import CausalLM, DecoderConfig, TextData
from pile_lightning.device import has_fast_bfloat16
from pile_lightning.nn import AttentionConfig, InitConfig
from pile_lightning.optim import AdamWConfig, LinearConfig, MuonConfig, OptimizerConfig

BASE, SEQ, BATCH, HEAD_DIM = 64, 128, 8, 32
OPTIMIZERS: dict[str, OptimizerConfig] = {
    "Muon": MuonConfig(base_width=BASE),
    "AdamW": AdamWConfig(lr=0.008, base_width=BASE),
}


def times(optimizer: OptimizerConfig, factor: float) -> OptimizerConfig:
    """Return ``optimizer`` with all its learning rates times ``factor``."""
    names = [n for n in ("lr", "table_lr", "lookup_lr", "vector_lr") if hasattr(optimizer, n)]
    return replace(optimizer, **{name: factor * getattr(optimizer, name) for name in names})


def score(data: TextData, width: int, optimizer: OptimizerConfig, init: InitConfig, args) -> float:
    """Train a network and return its held-out bits per byte."""
    seed_everything(args.seed, verbose=False)
    network = DecoderConfig(
        d_model=width,
        num_layers=2,
        attention=AttentionConfig(num_heads=width // HEAD_DIM),
        init=init,
    )
    model = CausalLM(
        network,
        vocab_size=data.vocab_size,
        max_seq_len=SEQ,
        optimizer=optimizer,
        schedule=LinearConfig(),
    )
    trainer = Trainer(
        accelerator=args.device,
        devices=1,
        precision="bf16-mixed" if has_fast_bfloat16(args.device) else "32-true",
        max_steps=args.steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, data)
    trainer.limit_val_batches = args.val_batches
    (found,) = trainer.validate(model, data, verbose=False)
    return found["val/bits_per_byte"]


def sweep(data: TextData, optimizer: OptimizerConfig, init: InitConfig, args, bar) -> dict:
    """Return the scores by width and power of two."""
    found = {}
    for width in args.widths:
        for power in args.powers:
            found[width, power] = score(data, width, times(optimizer, 2.0**power), init, args)
            bar.update()
    return found


def table(title: str, found: dict, args) -> str:
    """Return a table of a sweep, the best of each width marked."""
    best = {w: min(args.powers, key=lambda k: found[w, k]) for w in args.widths}
    lines = [f"{title}: held-out bits per byte after {args.steps} steps", ""]
    lines.append("| rates times | " + " | ".join(f"width {w}" for w in args.widths) + " |")
    lines.append("|---" * (1 + len(args.widths)) + "|")
    for power in args.powers:
        cells = [
            f"**{found[w, power]:.3f}**" if best[w] == power else f"{found[w, power]:.3f}"
            for w in args.widths
        ]
        lines.append(f"| {2.0**power:g} | " + " | ".join(cells) + " |")
    apart = max(best.values()) - min(best.values())
    lost = max(found[w, best[args.widths[0]]] - found[w, best[w]] for w in args.widths)
    narrow = args.widths[0]
    lines += ["", f"The best are {apart} steps apart; the rate of width {narrow} loses {lost:.3f}."]
    return "\n".join([*lines, ""])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--powers", type=int, nargs="+", default=[-2, -1, 0, 1, 2])
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--val_batches", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = TextData("stdlib", tokenizer="bpe:1024", seq_len=SEQ, batch_size=BATCH, val_stride=SEQ)
    total = 2 * len(args.optimizers) * len(args.widths) * len(args.powers)
    with tqdm(total=total) as bar:
        for name in args.optimizers:
            optimizer = OPTIMIZERS[name]
            found = sweep(data, optimizer, InitConfig.any_width(), args, bar)
            tqdm.write(table(f"{name}, base_width={BASE}", found, args))
            plain = replace(optimizer, base_width=None)
            found = sweep(data, plain, InitConfig(), args, bar)
            tqdm.write(table(f"{name}, one rate at any width", found, args))


if __name__ == "__main__":
    main()
