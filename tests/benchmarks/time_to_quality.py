"""How well a system predicts held-out text after so many seconds: ours beside two others.

    python tests/benchmarks/time_to_quality.py --nanogpt ADDRESS --peers_python peers/bin/python
    python tests/benchmarks/time_to_quality.py --only ours --seconds 600

The others are nanoGPT's own ``train.py`` (a folder of it, or the address of its git repository) and
a Llama of Hugging Face's under their ``Trainer``, each run as it is, in every config that is listed
(``--list``), under a Python that has what they need (torch, transformers, accelerate). All have the
same tokens, threads and held-out bytes. A run is a whole process with an empty compile cache; its
clock goes from the start of the process to the end of the last step, imports and compilation
included, and scoring is outside of it. How many steps fit into the time is found by a short run
before, so that each schedule ends when the time does.

Ours is run for the whole time and for shorter ones, each with a schedule of its own, which tells
how long it takes to where the others got. Use a machine that does nothing else. Results go to
``--out``, and a comparison that was interrupted goes on from there.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402

from tests.benchmarks.quality.changes import change, changed, find_config, read_config  # noqa: E402
from tests.benchmarks.quality.hugging_face import HUGGING_FACE  # noqa: E402
from tests.benchmarks.quality.nano_gpt import NANO_GPT  # noqa: E402
from tests.benchmarks.quality.others import add_peer_arguments, find_others  # noqa: E402
from tests.benchmarks.quality.ours import Ours, prepare  # noqa: E402
from tests.benchmarks.quality.processes import RunFailedError, end_with_children  # noqa: E402
from tests.benchmarks.quality.records import Records  # noqa: E402
from tests.benchmarks.quality.runs import Found, Runs  # noqa: E402
from tests.benchmarks.quality.trained import Candidate, Trained, steps_within  # noqa: E402


class Bench(Runs):
    """Runs candidates for a time, and finds those that were.

    Args:
        records: Where results are kept.
        scratch: Where runs leave their folders, which are deleted once they are scored.
        shared: What holds for all runs and tells a comparison from another.
        tried_steps: Of the short run that finds how fast a candidate is.
    """

    def __init__(
        self, records: Records, scratch: Path, shared: dict[str, Any], *, tried_steps: int
    ) -> None:
        super().__init__(records, scratch, shared)
        self.tried_steps = tried_steps

    def reach(self, candidate: Candidate, seconds: float) -> Found | None:
        """Return what a candidate reaches in ``seconds``, or None where it fails."""
        key = self.key(candidate, seconds=seconds)
        found = self.records.find(key)
        if found is None:
            try:
                steps = steps_within(seconds, self._try(candidate))
                found = self.run(candidate, steps)
                better = steps_within(seconds, Trained(*(found[n] for n in Trained._fields)))
                if abs(better / steps - 1) > 0.05:
                    took = found["seconds"]
                    print(f"{_name(candidate)} took {took:.0f} s; again with {better} steps")
                    found = self.run(candidate, better)
            except RunFailedError as failure:
                print(f"{_name(candidate)}: failed\n{failure}", flush=True)
                return None
            self.records.add(key, **found)
        print(
            f"{time.strftime('%H:%M:%S')} {_name(candidate)}: {found['bits_per_byte']:.4f} bits "
            f"per byte after {found['seconds']:.0f} s ({found['steps']} steps, "
            f"{found['tokens'] / 1e6:.2f} M tokens, {1000 * found['seconds_a_step']:.0f} ms each)",
            flush=True,
        )
        return {"system": candidate.system, "settings": candidate.settings, **found}

    def _try(self, candidate: Candidate) -> Trained:
        key = self.key(candidate, tried_steps=self.tried_steps)
        found = self.records.find(key)
        if found is None:
            folder = self.folder()
            found = candidate.train(self.tried_steps, folder)._asdict()
            shutil.rmtree(folder)
            self.records.add(key, **found)
        return Trained(**found)


def _name(candidate: Candidate) -> str:
    return f"{candidate.system} ({candidate.settings or 'as listed first'})"


def seconds_to(bits: float, reached: Sequence[Found]) -> tuple[float, bool]:
    """Return when ours was at ``bits`` per byte, and whether that is a bound, not a time.

    Between two runs it is on the straight line between them; the shortest run bounds what is
    before it.

    Example:
        >>> runs = [{"seconds": s, "bits_per_byte": b} for s, b in ((30, 2.0), (60, 1.5))]
        >>> seconds_to(1.75, runs), seconds_to(2.5, runs), seconds_to(1.0, runs)
        ((45.0, False), (30.0, True), (inf, False))
    """
    before: Found | None = None
    for run in sorted(reached, key=lambda run: run["seconds"]):
        if run["bits_per_byte"] <= bits:
            if before is None:
                return float(run["seconds"]), True
            share = (before["bits_per_byte"] - bits) / (
                before["bits_per_byte"] - run["bits_per_byte"]
            )
            return before["seconds"] + share * (run["seconds"] - before["seconds"]), False
        before = run
    return float("inf"), False


def report(found: Sequence[Found], ours: Sequence[Found], seconds: float) -> str:
    """Write the tables: the best of each system, ours at each time, and how they compare."""
    lines = [f"| best within {seconds:.0f} s | settings | seconds | M tokens | bits per byte |"]
    lines.append("|---|---|---|---|---|")
    best: dict[str, Found] = {}
    for run in sorted(found, key=lambda run: run["bits_per_byte"]):
        best.setdefault(run["system"], run)
    for run in best.values():
        lines.append(_row(run))
    if ours:
        lines += ["", "| ours | settings | seconds | M tokens | bits per byte |"]
        lines += ["|---|---|---|---|---|"]
        lines += [_row(run) for run in sorted(ours, key=lambda run: -run["seconds"])]
    for system, run in best.items():
        if system == "ours" or not ours:
            continue
        took, bound = seconds_to(run["bits_per_byte"], ours)
        at_most = "at most " if bound else ""
        lines += [
            "",
            f"Ours is where {system} was after {run['seconds']:.0f} s "
            f"({run['bits_per_byte']:.4f}) after {at_most}{took:.0f} s: {at_most}"
            f"{took / run['seconds']:.2f} of the time.",
        ]
    return "\n".join(lines)


def _row(run: Found) -> str:
    return (
        f"| {run['system']} | {run['settings']} | {run['seconds']:.0f} | "
        f"{run['tokens'] / 1e6:.2f} | {run['bits_per_byte']:.4f} |"
    )


def peers(args: argparse.Namespace, scratch: Path, shared: dict[str, Any]) -> list[Candidate]:
    """Return the candidates of the other systems, and say what is missing."""
    tried = {
        "nanogpt": args.nanogpt_settings or NANO_GPT,
        "hugging_face": args.hugging_face_settings or HUGGING_FACE,
    }
    makers = find_others(
        args.only,
        nanogpt=args.nanogpt,
        python=args.peers_python,
        scratch=scratch,
        **shared,
    )
    return [make(settings=each) for name, make in makers.items() for each in tried[name]]


def compare(args: argparse.Namespace, scratch: Path) -> str:
    """Run what is missing and return the tables."""
    changes = dict(args.set)
    first = changed(read_config(find_config(args.configs[0])), changes)
    data = prepare(first)
    shared = {
        "data": data,
        "environment": {"OMP_NUM_THREADS": str(args.threads)},
        "timeout": 600 + 4 * args.seconds,
        "val_batches": args.val_batches,
    }
    told = {"text": data.store_path.name, "threads": args.threads, "batches": args.val_batches}
    bench = Bench(Records(args.out), scratch, told, tried_steps=args.tried_steps)
    print(
        f"{platform.processor() or platform.machine()}, {args.threads} threads, "
        f"torch {torch.__version__}, {data.store.counts('val').num_bytes:,} held-out bytes"
    )
    found, ours = [], []
    if "ours" in args.only:
        for config in args.configs:
            own = Ours(settings=config, changes=changes, **shared)
            for fraction in sorted(args.fractions, reverse=True):
                run = bench.reach(own, args.seconds * fraction)
                ours += [] if run is None else [run]
                found += [run] if run is not None and fraction == 1 else []
    for candidate in peers(args, scratch, shared):
        run = bench.reach(candidate, args.seconds)
        found += [] if run is None else [run]
    return report(found, ours, args.seconds)


def main(argv: Sequence[str] | None = None, show: Callable[[str], None] = print) -> None:
    """Run what is missing and print the tables."""
    systems = ("ours", "nanogpt", "hugging_face")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument(
        "--fractions",
        type=float,
        nargs="+",
        default=[1, 1 / 2, 1 / 3, 1 / 4],
        help="of the seconds, that ours is run for",
    )
    parser.add_argument("--only", nargs="+", choices=systems, default=systems)
    parser.add_argument(
        "--configs",
        nargs="+",
        help="of ours",
        default=["configs/quickstart.yaml"],
    )
    parser.add_argument(
        "--set", type=change, nargs="*", default=[], metavar="NAME=VALUE", help="of our configs"
    )
    add_peer_arguments(parser, sys.executable)
    parser.add_argument("--nanogpt_settings", nargs="+", metavar="LINE", help="in place of ours")
    parser.add_argument("--hugging_face_settings", nargs="+", metavar="LINE")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tried_steps", type=int, default=60, help="of the run that finds speed")
    parser.add_argument("--val_batches", type=int, help="score less, for a trial")
    parser.add_argument("--out", type=Path, default=Path("runs/time_to_quality.jsonl"))
    parser.add_argument("--list", action="store_true", help="print what is tried, and leave")
    args = parser.parse_args(argv)
    if args.list:
        for name, settings in (("nanoGPT", NANO_GPT), ("Hugging Face Trainer", HUGGING_FACE)):
            show("\n".join(f"{name}: {each or '(its defaults)'}" for each in settings))
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="time-to-quality-") as scratch, end_with_children():
        show(f"\n{compare(args, Path(scratch))}")


if __name__ == "__main__":
    main()
