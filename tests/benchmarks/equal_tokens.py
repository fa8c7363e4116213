"""Held-out bits per byte at equal tokens and parameters, each system at its best learning rate.

    python tests/benchmarks/equal_tokens.py --nanogpt ADDRESS --peers_python peers/bin/python
    python tests/benchmarks/equal_tokens.py --only no_tables litgpt --steps 100 --jobs 2
    python tests/benchmarks/equal_tokens.py --table

The others are nanoGPT's own ``train.py``, a Llama of Hugging Face's under their ``Trainer`` and
litgpt's own ``pretrain`` command, each as it is, under a Python that has what they need. All read
the same tokens of the standard library's text, take as many of them, each by a schedule over its
own steps, and are scored on the same held-out bytes, ours within documents, the others with what
came before. Head and embedding are tied in all. Look-up tables are parameters, so ours has rows
with them, without, and narrower with a smaller one.

The learning rates are a grid to begin with; where the best of a system is the least or the greatest
that was tried, its grid grows by one at that end, by the same ratio, at most ``--grow`` times.
``--batch_sizes`` tunes that as well. Each run is a process on one thread; results go to ``--out``,
and a comparison that was interrupted goes on from there.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402

from pile_lightning import TextData  # noqa: E402
from tests.benchmarks.quality.changes import change, changed, find_config, read_config  # noqa: E402
from tests.benchmarks.quality.entrants import (  # noqa: E402
    OURS,
    PEERS,
    Entrant,
    Scale,
    our_entrant,
    peer_entrant,
)
from tests.benchmarks.quality.grid import Cell, Grid  # noqa: E402
from tests.benchmarks.quality.others import add_peer_arguments, find_others  # noqa: E402
from tests.benchmarks.quality.ours import prepare  # noqa: E402
from tests.benchmarks.quality.records import Records  # noqa: E402
from tests.benchmarks.quality.runs import Found, Runs  # noqa: E402

RATES = {
    "ours": (0.015, 0.03, 0.06),
    "nanogpt": (1e-3, 2e-3, 4e-3),
    "hugging_face": (1e-3, 2e-3, 4e-3),
    "litgpt": (1e-3, 2e-3, 4e-3),
}


class Line(NamedTuple):
    """A row of the table."""

    name: str
    found: Found
    cell: Cell
    tried: dict[tuple[float, int], float]

    @property
    def at_edge(self) -> bool:
        """Return whether a rate beyond those that were tried might be better."""
        rates = [rate for rate, _ in self.tried]
        return self.cell.rate in (min(rates), max(rates))


def lines(grid: Grid) -> list[Line]:
    """Return what is known, the best first."""
    found = []
    for entrant in grid.entrants:
        cells = [
            Cell(entrant, rate, size) for rate in grid.rates(entrant) for size in grid.batch_sizes
        ]
        tried = {
            (cell.rate, cell.batch_size): grid.bits(cell) for cell in cells if grid.known(cell)
        }
        best = min(cells, key=grid.bits)
        own = grid.find(best)
        if own is not None:
            found.append(Line(entrant.name, own, best, tried))
    return sorted(found, key=lambda line: line.found["bits_per_byte"])


def table(grid: Grid) -> str:
    """Write the table."""
    several = len(grid.batch_sizes) > 1
    written = [
        "| system | parameters | not looked up | tokens | learning rates: bits per byte | best |",
        "|---|---|---|---|---|---|",
    ]
    edges = []
    for line in lines(grid):
        tried = ", ".join(
            f"{rate:g}{f' x {size}' if several else ''}: {bits:.4f}"
            for (rate, size), bits in line.tried.items()
        )
        own = line.found
        written.append(
            f"| {line.name} | {own['parameters'] / 1e6:.2f} M | "
            f"{(own['parameters'] - own['looked_up']) / 1e6:.2f} M | {own['tokens']:,} | {tried} | "
            f"{own['bits_per_byte']:.4f} |"
        )
        edges += [line.name] if line.at_edge else []
    if edges:
        written += ["", f"At the edge of the rates that were tried: {'; '.join(edges)}."]
    if missing := len(grid.missing()):
        written += ["", f"Runs that are still to be done: {missing}."]
    return "\n".join(written)


def entrants(args: argparse.Namespace, data: TextData, scratch: Path) -> list[Entrant]:
    """Return the rows that can be run here, in the order that is asked for."""
    scale = Scale(
        d_model=args.d_model,
        num_layers=args.num_layers,
        seq_len=args.seq_len,
        compile=not args.eager,
    )
    shared = {
        "data": data,
        "environment": {
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",  # all are on the CPU, as nanoGPT and the Trainer are told
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),  # time does not count here
        },
        "timeout": args.timeout,
        "val_batches": args.val_batches,
    }
    makers = find_others(
        args.only, nanogpt=args.nanogpt, python=args.peers_python, scratch=scratch, **shared
    )
    ours = partial(
        our_entrant,
        config=args.config,
        changes=dict(args.set),
        scale=scale,
        vocab_size=data.vocab_size,
        rates=args.ours_rates,
        shared=shared,
    )
    return [
        ours(name)
        if name in OURS
        else peer_entrant(name, makers[name], scale=scale, rates=getattr(args, f"{name}_rates"))
        for name in args.only
        if name in OURS or name in makers
    ]


def read(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    rows, systems = (*OURS, *PEERS), ("ours", *PEERS)
    parser.add_argument("--only", nargs="+", choices=rows, default=rows, help="in this order")
    parser.add_argument("--steps", type=int, default=250, help="of eight rows, or as many tokens")
    for name in systems:
        parser.add_argument(f"--{name}_rates", type=float, nargs="+", default=RATES[name])
    parser.add_argument("--grow", type=int, default=2, help="times that a grid may grow")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[8], help="rows of a batch")
    parser.add_argument("--d_model", type=int, default=256)
    parser.add_argument("--num_layers", type=int, default=4)
    parser.add_argument("--seq_len", type=int, default=256)
    parser.add_argument("--eager", action="store_true", help="compile nothing; litgpt does anyway")
    parser.add_argument("--config", default="configs/ten_minutes.yaml", help="of ours")
    parser.add_argument(
        "--set", type=change, nargs="*", default=[], metavar="NAME=VALUE", help="of our config"
    )
    add_peer_arguments(parser, sys.executable)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, a core each")
    parser.add_argument("--timeout", type=float, default=7200, help="seconds that a run may take")
    parser.add_argument("--val_batches", type=int, help="score less, for a trial")
    parser.add_argument("--out", type=Path, default=Path("runs/equal_tokens.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what is known and leave")
    args = parser.parse_args(argv)
    for name in ("steps", "batch_sizes", "jobs", *(f"{name}_rates" for name in systems)):
        given = getattr(args, name)
        if any(each <= 0 for each in (given if isinstance(given, Sequence) else [given])):
            parser.error(f"--{name} {given}: give numbers above 0")
    return args


def main(argv: Sequence[str] | None = None, show: Callable[[str], None] = print) -> None:
    """Run what is missing and print the table."""
    args = read(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    data = prepare(changed(read_config(find_config(args.config)), dict(args.set)))
    show(f"torch {torch.__version__}, {data.store.counts('val').num_bytes:,} held-out bytes")
    told = {"text": data.store_path.name, "batches": args.val_batches}
    with tempfile.TemporaryDirectory(prefix="equal-tokens-") as fresh:
        grid = Grid(
            Runs(Records(args.out), Path(fresh), told),
            entrants(args, data, Path(fresh)),
            batch_sizes=args.batch_sizes,
            tokens=args.steps * 8 * args.seq_len,
            grow=args.grow,
        )
        if not args.table:
            grid.run_all(at_once=args.jobs)
        show(f"\n{table(grid)}" if lines(grid) else "nothing of it was run")


if __name__ == "__main__":
    main()
