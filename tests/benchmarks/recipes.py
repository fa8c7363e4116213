"""What each learning lever does: held-out bits per byte at equal tokens and at equal time.

    python tests/benchmarks/recipes.py --jobs 2                     # all rows, three seeds
    python tests/benchmarks/recipes.py --rows base "AdamW" --seeds 0 --steps 250
    python tests/benchmarks/recipes.py --list

The base is ``configs/quickstart.yaml`` at ``--steps`` steps; every other row changes a field or two
of it. Each run is a process of ``train.py fit`` on one thread, from its own seed, with a schedule
over its own steps, and long rows from the same share of them on. At equal tokens a row sees as many
tokens as the base. At equal time it gets the steps that fit into the base's CPU time, by the mean
CPU seconds of a step (scoring left out) of the runs before. Results go to ``--out``, a line a run,
and a table that was interrupted goes on from there; a run is found again by its config, so a row
that changes is run anew.
"""

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from pile_lightning.callbacks import read_metrics  # noqa: E402
from tests.benchmarks.quality.changes import Config, change, changed, read_config  # noqa: E402
from tests.benchmarks.quality.fit import fit  # noqa: E402
from tests.benchmarks.quality.levers import ROWS  # noqa: E402
from tests.benchmarks.quality.processes import RunFailedError, end_with_children  # noqa: E402
from tests.benchmarks.quality.records import Records  # noqa: E402


class Job(NamedTuple):
    """One run."""

    row: str
    seed: int
    steps: int


class Bench:
    """Runs jobs that have not been run, and finds those that have.

    Args:
        base: The config that rows change.
        records: Where results are kept.
        scratch: Where runs leave their folders, which are deleted.
        keep: Leave them.
    """

    def __init__(self, base: Config, records: Records, scratch: Path, *, keep: bool) -> None:
        self.base, self.records, self.scratch, self.keep = base, records, scratch, keep

    def config(self, job: Job) -> Config:
        """Return all settings of a run but for its steps."""
        return changed(self.base, {**ROWS[job.row], "seed_everything": job.seed})

    def short_part(self, job: Job) -> Config:
        """Return the change by which rows are short for the same share of every run."""
        own = self.config(job)["data"]["init_args"].get("short_rows")
        if own is None:
            return {}
        all_tokens = self.base["trainer"]["max_steps"] * self.tokens_a_step("base")
        part = job.steps * self.tokens_a_step(job.row) / all_tokens
        return {"data.init_args.short_rows.until_tokens": part * own["until_tokens"]}

    def key(self, job: Job) -> dict[str, Any]:
        """Return what a run is found by."""
        text = json.dumps(self.config(job), sort_keys=True)
        return {**job._asdict(), "config": hashlib.sha256(text.encode()).hexdigest()[:12]}

    def tokens_a_step(self, row: str) -> int:
        """Return the positions of a row's batch."""
        data = self.config(Job(row, 0, 0))["data"]["init_args"]
        return int(data["batch_size"] * data["seq_len"])

    def find(self, job: Job) -> dict[str, Any] | None:
        """Return what a run reached, or None if it was not run."""
        return self.records.find(self.key(job))

    def run(self, job: Job) -> None:
        """Run a job, keep what it reached and print a line."""
        key = self.key(job)
        folder = self.scratch / f"{key['config']}-{job.steps}"
        shutil.rmtree(folder, ignore_errors=True)
        environment = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        started = time.perf_counter()
        try:
            done = fit(
                self.config(job),
                steps=job.steps,
                folder=folder,
                environment=environment,
                timeout=3600 + 10 * job.steps,
                changes=self.short_part(job),
            )
        except RunFailedError as failure:
            print(f"{_told(job)}: failed\n{failure}", flush=True)
            return
        metrics = read_metrics(done.folder / "metrics.csv")
        (bits,) = (row["val/bits_per_byte"] for row in metrics if "val/bits_per_byte" in row)
        found = {
            "bits_per_byte": bits,
            "cpu_seconds_a_step": done.cpu_seconds_a_step,
            "tokens": job.steps * self.tokens_a_step(job.row),
            "whole_run_seconds": time.perf_counter() - started,
        }
        self.records.add(key, **found)
        if not self.keep:
            shutil.rmtree(folder)
        print(
            f"{_told(job)}: {found['bits_per_byte']:.4f} bits per byte, "
            f"{1000 * found['cpu_seconds_a_step']:.0f} ms a step, "
            f"{found['whole_run_seconds']:.0f} s in all",
            flush=True,
        )

    def run_all(self, jobs: Iterable[Job], *, at_once: int) -> None:
        """Run what is missing of ``jobs``, so many side by side."""
        missing = [job for job in jobs if self.find(job) is None]
        print(f"{len(missing)} runs to do", flush=True)
        pool = ThreadPoolExecutor(at_once)
        try:
            with end_with_children():
                list(pool.map(self.run, missing))
        finally:
            pool.shutdown(cancel_futures=True)


def _told(job: Job) -> str:
    return f"{time.strftime('%H:%M:%S')} {job.row}, seed {job.seed}, {job.steps} steps"


class Line(NamedTuple):
    """A row of the table: scores by seed, at equal tokens and at equal time."""

    row: str
    milliseconds: float | None
    tokens: dict[int, float]
    time: dict[int, float]
    steps: int | None


class Plan:
    """Which runs make the table.

    Args:
        bench: Where they are run.
        rows: Names, ``base`` among them.
        seeds: Of each row.
        steps: Of the base.
    """

    def __init__(self, bench: Bench, rows: Sequence[str], seeds: Sequence[int], steps: int) -> None:
        self.bench, self.rows, self.seeds, self.steps = bench, rows, seeds, steps

    def equal_tokens(self, row: str, seed: int) -> Job:
        """Return the run of a row on as many tokens as the base."""
        bench = self.bench
        ratio = bench.tokens_a_step("base") / bench.tokens_a_step(row)
        return Job(row, seed, round(self.steps * ratio))

    def seconds(self, row: str) -> float | None:
        """Return the CPU seconds of a step, the median over seeds at equal tokens."""
        found = [self.bench.find(self.equal_tokens(row, seed)) for seed in self.seeds]
        known = [each["cpu_seconds_a_step"] for each in found if each is not None]
        return statistics.median(known) if known else None

    def equal_time(self, row: str, seed: int) -> Job | None:
        """Return the run of a row that takes the base's time; None where that is not known."""
        base, own = self.seconds("base"), self.seconds(row)
        if base is None or own is None:
            return None
        same = self.equal_tokens(row, seed)
        steps = max(2, round(self.steps * base / own))
        # closer than a step is measured, it is the same run
        return same if abs(steps / same.steps - 1) < 0.02 else same._replace(steps=steps)

    def jobs(self, which: Callable[[str, int], Job | None]) -> list[Job]:
        """Return the runs of all rows, one seed after another: each round is a whole table."""
        found = [which(row, seed) for seed in self.seeds for row in self.rows]
        return [job for job in found if job is not None]

    def line(self, row: str) -> Line:
        """Return what is known of a row."""
        seconds = self.seconds(row)
        scores: list[dict[int, float]] = []
        for which in (self.equal_tokens, self.equal_time):
            jobs = {seed: which(row, seed) for seed in self.seeds}
            found = {seed: self.bench.find(job) for seed, job in jobs.items() if job is not None}
            scores.append({s: each["bits_per_byte"] for s, each in found.items() if each})
        timed = self.equal_time(row, self.seeds[0])
        steps = None if timed is None else timed.steps
        return Line(row, None if seconds is None else 1000 * seconds, *scores, steps)


def _cells(own: dict[int, float], base: dict[int, float]) -> list[str]:
    """Return mean and spread, and those of the difference from the base's same seeds."""
    apart = [own[seed] - base[seed] for seed in own if seed in base]
    return [_mean_and_spread(list(own.values()), ""), _mean_and_spread(apart, "+")]


def _mean_and_spread(numbers: list[float], sign: str) -> str:
    if not numbers:
        return ""
    mean = f"{statistics.fmean(numbers):{sign}.4f}"
    return mean if len(numbers) < 2 else f"{mean} ({statistics.stdev(numbers):.4f})"


def table(plan: Plan) -> str:
    """Write the table, what helps most at equal time first."""
    lines = [plan.line(row) for row in plan.rows]
    base = next(line for line in lines if line.row == "base")

    def gain(line: Line) -> float:
        for own, reference in ((line.time, base.time), (line.tokens, base.tokens)):
            apart = [own[seed] - reference[seed] for seed in own if seed in reference]
            if apart:
                return statistics.fmean(apart)
        return float("inf")

    written = [
        f"Held-out bits per byte, mean (standard deviation) over seeds "
        f"{', '.join(map(str, plan.seeds))}; the base takes {plan.steps} steps of "
        f"{plan.bench.tokens_a_step('base')} tokens.",
        "",
        "| | ms a step | equal tokens | difference | equal time, steps | | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in sorted(lines, key=lambda line: (line.row != "base", gain(line))):
        milliseconds = "" if line.milliseconds is None else f"{line.milliseconds:.0f}"
        steps = "" if line.steps is None else str(line.steps)
        cells = [milliseconds, *_cells(line.tokens, base.tokens), steps]
        cells += _cells(line.time, base.time)
        written.append(f"| {line.row} | " + " | ".join(cells) + " |")
    return "\n".join(written)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs/quickstart.yaml")
    parser.add_argument("--steps", type=int, default=500, help="of the base")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", help="parts of names; by default all")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, a core each")
    parser.add_argument("--skip_equal_time", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes.jsonl"))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the runs' folders there")
    parser.add_argument(
        "--set", type=change, nargs="*", default=[], metavar="NAME=VALUE", help="of all rows"
    )
    parser.add_argument("--list", action="store_true", help="print the rows and leave")
    parser.add_argument("--table", action="store_true", help="print what is known and leave")
    args = parser.parse_args(argv)
    if args.list:
        print("\n".join(f"{row}: {changes}" for row, changes in ROWS.items()))
        return
    chosen = [row for row in ROWS if not args.rows or any(part in row for part in args.rows)]
    rows = list(dict.fromkeys(["base", *chosen]))
    base = changed(read_config(args.config), dict(args.set))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="recipes-") as fresh:
        scratch = (args.keep or Path(fresh)).absolute()
        bench = Bench(base, Records(args.out), scratch, keep=args.keep is not None)
        plan = Plan(bench, rows, args.seeds, args.steps)
        if not args.table:
            first = plan.equal_tokens("base", args.seeds[0])
            bench.run_all([first], at_once=1)  # alone: it prepares the text that all share
            bench.run_all(plan.jobs(plan.equal_tokens), at_once=args.jobs)
            if not args.skip_equal_time:
                bench.run_all(plan.jobs(plan.equal_time), at_once=args.jobs)
    print(f"\n{table(plan)}")


if __name__ == "__main__":
    main()
