"""What the Trainer costs a step, beside a bare loop around the same network.

    python tests/benchmarks/trainer_overhead.py

Trainer and loop run in turn, in one process on one core, each for the same rows, optimizer and
schedule; the clock is the process's CPU time. The Trainer is a quiet one, and the one that
``train.py`` makes: logging every 50 steps, throughput, progress bar, checkpoints.
"""

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings

import torch
from lightning import Callback, LightningDataModule, Trainer

from pile_lightning import CausalLM, DecoderConfig
from pile_lightning.batch import IGNORE_INDEX
from pile_lightning.callbacks import LastCheckpoint, MetricsCsv, StepProgressBar, Throughput
from pile_lightning.nn import AttentionConfig
from pile_lightning.optim import AdamWConfig, LinearConfig

VOCAB, SEQ, WARM = 512, 64, 20
SIZES = {
    "about 5 ms": (DecoderConfig(d_model=64, num_layers=1), 4),
    "about 100 ms": (
        DecoderConfig(d_model=256, num_layers=4, attention=AttentionConfig(num_heads=4)),
        6,
    ),
}


def make_batch(rows: int) -> dict[str, torch.Tensor]:
    """Return one batch of random tokens."""
    ids = torch.randint(VOCAB, (rows, SEQ + 1), generator=torch.Generator().manual_seed(0))
    return {
        "input_ids": ids[:, :-1],
        "labels": ids[:, 1:],
        "position_ids": torch.arange(SEQ).expand(rows, -1).contiguous(),
        "document_ids": torch.zeros(rows, SEQ, dtype=torch.long),
        "domain": torch.zeros(rows, dtype=torch.long),
        "num_bytes": torch.full((rows,), SEQ),
    }


class Endless(LightningDataModule):
    """Serve one batch for ever."""

    def __init__(self, batch: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.batch = batch

    def train_dataloader(self) -> object:
        """Return the loader."""
        return Repeat(self.batch)


class Repeat:
    """Yield one batch for ever."""

    def __init__(self, batch: dict[str, torch.Tensor]) -> None:
        self.batch = batch

    def __iter__(self) -> object:
        while True:
            yield self.batch


class Clock(Callback):
    """Take CPU time from the end of the warm-up to the last step."""

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Read the clock."""
        if trainer.global_step == WARM:
            self.start = time.process_time()
        elif trainer.global_step == trainer.max_steps:
            self.seconds = time.process_time() - self.start


def make_model(config: DecoderConfig) -> CausalLM:
    """Return the model that both loops train."""
    torch.manual_seed(0)
    return CausalLM(config, vocab_size=VOCAB, max_seq_len=SEQ, optimizer=AdamWConfig())


def bare_loop(config: DecoderConfig, batch: dict[str, torch.Tensor], steps: int) -> float:
    """Return the CPU milliseconds of a step of a plain loop."""
    model = make_model(config)
    optimizer = AdamWConfig().build(model.built_network)
    factor = LinearConfig().build(total=steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for step in range(steps):
        loss = model.loss_sum(batch) / (batch["labels"] != IGNORE_INDEX).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step + 1 == WARM:
            start = time.process_time()
    return 1000 * (time.process_time() - start) / (steps - WARM)


def trainer_loop(
    config: DecoderConfig, batch: dict[str, torch.Tensor], steps: int, *, quiet: bool
) -> float:
    """Return the CPU milliseconds of a step under the Trainer."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        callbacks: list[Callback] = [clock]
        if not quiet:
            callbacks += [StepProgressBar(), Throughput(), LastCheckpoint(every_n_steps=10**6)]
        Trainer(
            accelerator="cpu",
            default_root_dir=folder,
            max_steps=steps,
            logger=False if quiet else MetricsCsv(folder),
            log_every_n_steps=10**9 if quiet else 50,
            callbacks=callbacks,
            enable_checkpointing=not quiet,
            enable_progress_bar=not quiet,
            enable_model_summary=False,
        ).fit(make_model(config), Endless(batch))
    return 1000 * clock.seconds / (steps - WARM)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--steps", type=int, default=220, help="of the small size; a fifth of large"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    os.environ["TQDM_DISABLE"] = ""
    print(
        f"{'step':<14}{'bare loop':>12}{'quiet':>18}{'as train.py':>18}   ms, median (difference)"
    )
    for name, (config, rows) in SIZES.items():
        batch = make_batch(rows)
        steps = arguments.steps if "5 ms" in name else WARM + arguments.steps // 5
        times: dict[str, list[float]] = {"bare": [], "quiet": [], "full": []}
        for _ in range(arguments.rounds):
            times["bare"].append(bare_loop(config, batch, steps))
            times["quiet"].append(trainer_loop(config, batch, steps, quiet=True))
            times["full"].append(trainer_loop(config, batch, steps, quiet=False))
        bare = statistics.median(times["bare"])
        cells = [f"{bare:12.2f}"]
        for kind in ("quiet", "full"):
            # paired: the machine drifts, and a round drifts less
            pairs = zip(times[kind], times["bare"], strict=True)
            difference = statistics.median(a - b for a, b in pairs)
            cells.append(f"{statistics.median(times[kind]):9.2f} ({difference:+.2f})".rjust(18))
        print(f"{name:<14}{''.join(cells)}")


if __name__ == "__main__":
    main()
