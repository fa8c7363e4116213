"""Train one small run in every way, resume each as every other, and say by how much they differ.

    python tests/benchmarks/strategies.py             # a table: each way resumes as the next
    python tests/benchmarks/strategies.py --all       # each way resumes as every other
    python tests/benchmarks/strategies.py --device cuda     # what one GPU shows: bf16, compiled

On gloo, in float32, with clipping: what differs is the order of sums. "Resumed as itself" is not of
this kind: a run that goes on in the way that it was started in has the weights of the run that was
not interrupted, bit for bit.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from pile_lightning.callbacks import read_metrics  # noqa: E402
from pile_lightning.checkpoint import load_whole  # noqa: E402
from tests.parallel.two_nodes import (  # noqa: E402
    loopback,
    namespaces,
    run_on_nodes,
    why_no_namespaces,
)

STEPS, HALF = 20, 10
SHARDED = "--trainer.strategy.class_path=pile_lightning.ShardedStrategy"


class Way(NamedTuple):
    """How a run is spread over processes."""

    ranks: int
    arguments: tuple[str, ...] = ()
    nodes: str | None = None


WAYS = {
    "one process": Way(1),
    "ddp 2": Way(2, ("--trainer.strategy=ddp",)),
    "fsdp2 2": Way(2, (SHARDED,)),
    "tensor 2": Way(2, (SHARDED, "--trainer.strategy.init_args.tensor=2")),
    "fsdp2 2 x tensor 2": Way(4, (SHARDED, "--trainer.strategy.init_args.tensor=2")),
    "two nodes, ddp": Way(2, ("--trainer.strategy=ddp",), "loopback"),
    "two nodes, fsdp2": Way(2, (SHARDED,), "namespaces"),
}
ON_ONE_DEVICE = {"one process": Way(1), "fsdp2 1": Way(1, (SHARDED,))}
DEVICES = {
    "cpu": ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--model.compile=false"],
    "cpu-compiled": [
        *["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--model.compile=true"],
        "--model.activation_checkpointing=selective",
    ],
    "cuda": ["--trainer.accelerator=gpu", "--trainer.precision=bf16-mixed", "--model.compile=true"],
}


class Run(NamedTuple):
    """What a run left."""

    weights: dict[str, torch.Tensor]
    metrics: dict[int, dict[str, float]]

    def differs(self, other: "Run", *names: str) -> float:
        """Return the largest relative difference of the metrics that both have."""
        found = [
            abs(mine[name] - other.metrics[step][name]) / abs(mine[name])
            for step, mine in self.metrics.items()
            for name in names
            if name in mine and name in other.metrics.get(step, {})
        ]
        assert found, f"nothing to compare of {names}"
        return max(found)

    def same_weights(self, other: "Run") -> bool:
        """Say whether all weights are equal, bit for bit."""
        return all(torch.equal(value, other.weights[name]) for name, value in self.weights.items())


class Trials:
    """Runs of one config, in a folder of their own.

    Args:
        folder: Where they go.
        sources: Text to train on.
        ways: How runs may be spread, by name.
        device: What they run on.
    """

    def __init__(
        self, folder: Path, sources: Path, *, ways: dict[str, Way] = WAYS, device: str = "cpu"
    ) -> None:
        self.folder, self.sources, self.ways, self.device = folder, sources, ways, device
        self.reason = why_no_namespaces()

    def __call__(self, way: str, *, start: str | None = None) -> Run:
        """Train to the last step, from the start or from the half-way checkpoint of a run."""
        name = f"{way} from {start}" if start else way
        run = self.folder / name.replace(" ", "-").replace(",", "")
        spread = self.ways[way]
        arguments = [*self._arguments(), *spread.arguments, f"--trainer.default_root_dir={run}"]
        if start:
            kept = self.folder / start.replace(" ", "-").replace(",", "")
            arguments.append(f"--ckpt_path={kept / f'checkpoints/step-{HALF:08}.ckpt'}")
        self._run(spread, arguments)
        metrics: dict[int, dict[str, float]] = {}
        for row in read_metrics(run / "metrics.csv"):
            metrics.setdefault(int(row["step"]), {}).update(row)
        return Run(load_whole(run / "checkpoints/last.ckpt")["state_dict"], metrics)

    def _arguments(self) -> list[str]:
        return [
            "fit",
            f"--config={REPOSITORY / 'configs/quickstart.yaml'}",
            "--model.network.d_model=32",
            "--model.network.num_layers=2",
            "--data.tokenizer=byte",
            "--data.seq_len=64",
            "--data.batch_size=8",
            "--data.short_rows=null",
            "--data.val_stride=64",
            "--data.val_fraction=0.2",
            f"--data.sources={self.sources}",
            f"--data.cache_dir={self.folder / 'cache'}",
            "--trainer.gradient_clip_val=0.5",
            "--trainer.log_every_n_steps=1",
            "--trainer.val_check_interval=10",
            "--trainer.limit_val_batches=8",
            f"--trainer.max_steps={STEPS}",
            f"--kept_checkpoints.every_n_steps={HALF}",
            # not Muon, nor AdamW with a small eps: both take the sign of what is all but zero, and
            # so make something of the last digit in which sums of two orders differ
            "--model.optimizer=pile_lightning.optim.AdamWConfig",
            "--model.optimizer.eps=0.001",
            "--samples.max_new_tokens=8",
            *DEVICES[self.device],
        ]

    def _run(self, way: Way, arguments: list[str]) -> None:
        script = str(REPOSITORY / "train.py")
        settings: dict[str, Any] = {"cwd": self.folder, "timeout": 300}
        if way.nodes is None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, script, *arguments, f"--trainer.devices={way.ranks}"]
            done = [
                subprocess.run(command, env=environment, capture_output=True, text=True, **settings)
            ]
        else:
            command = [script, *arguments, "--trainer.devices=1", "--trainer.num_nodes=2"]
            if way.nodes == "namespaces" and self.reason is None:
                with namespaces() as nodes:
                    done = run_on_nodes(nodes, command, **settings)
            else:
                done = run_on_nodes(loopback(), command, **settings)
        for each in done:
            if each.returncode:
                raise RuntimeError(f"{' '.join(command)} ended with\n{each.stderr[-4000:]}")


class Found(NamedTuple):
    """What was found of one way."""

    loss: float
    norm: float
    score: float
    resumed_exactly: bool
    resumed_elsewhere: float


def prove(trials: Trials, *, every: bool, on_run: Callable[[], object]) -> dict[str, Found]:
    """Run every way, resume each as itself and as the next or every other.

    Args:
        trials: Trains.
        every: Resume each as every other.
        on_run: Called after each run.
    """

    def run(way: str, **start: str) -> Run:
        done = trials(way, **start)
        on_run()
        return done

    ways = list(trials.ways)
    whole = {way: run(way) for way in ways}
    one = whole["one process"]
    found = {}
    for number, way in enumerate(ways):
        others = [other for other in ways if other != way]
        if not every:
            others = [ways[(number + 1) % len(ways)]]
        again = run(way, start=way)
        found[way] = Found(
            loss=one.differs(whole[way], "train/loss"),
            norm=one.differs(whole[way], "train/gradient_norm"),
            score=one.differs(whole[way], "val/loss", "val/bits_per_byte", "val/perplexity"),
            resumed_exactly=whole[way].same_weights(again),
            resumed_elsewhere=max(
                one.differs(run(other, start=way), "train/loss", "val/loss") for other in others
            ),
        )
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="resume each way as every other")
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--one", action="store_true", help="only what one device shows")
    settings = parser.parse_args()
    ways = ON_ONE_DEVICE if settings.one or settings.device == "cuda" else WAYS
    resumes = len(ways) if settings.all else 2
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(ways) * (1 + resumes)) as bar:
        sources = Path(os.__file__).parent / "email"
        trials = Trials(Path(folder), sources, ways=ways, device=settings.device)
        found = prove(trials, every=settings.all, on_run=bar.update)
    if ways is WAYS and trials.reason is not None:
        print(f"Two nodes are two agents on loopback here: {trials.reason}.")
    elsewhere = "every other" if settings.all else "the next"
    print(
        f"Largest relative difference from one process over {STEPS} steps:\n\n"
        f"| way | loss | gradient norm | held-out scores | resumed as itself | as {elsewhere} |\n"
        f"|---|---|---|---|---|---|"
    )
    for way, each in found.items():
        exact = "exact" if each.resumed_exactly else "DIFFERS"
        print(
            f"| {way} | {each.loss:.0e} | {each.norm:.0e} | {each.score:.0e} | {exact} | "
            f"{each.resumed_elsewhere:.0e} |"
        )


if __name__ == "__main__":
    main()
