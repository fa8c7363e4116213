"""How fast prepared rows come, on one core without workers, beside a memory map and ``datasets``.

    python tests/benchmarks/rows.py

Batches of rows of 1024, drawn as in training: 22 domains in unequal shares, each in a keyed order,
in one part of a store or in hundreds; with documents, positions and bytes. Beside them stand the
bare copy of as many tokens from one memory map, in random places, and ``datasets`` (arrow in its
torch format, input ids alone, as lists, which is what its ``map`` makes of text). All take turns in
one process, and the clock is its CPU time; the best of the rounds counts. Tokens are random,
documents as long as web pages are.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from pile_lightning.data.best_fit_rows import BestFitRows
from pile_lightning.data.loader import Batches
from pile_lightning.data.mixture import MixedOrder, Mixture, MixtureStage
from pile_lightning.data.packing import SplitRows, TrainingRows
from pile_lightning.data.packs import write_pack
from pile_lightning.data.share import Share
from pile_lightning.data.short_rows import ShortRows, ShortStage
from pile_lightning.data.token_stream import DOCUMENT_DTYPE, Segment, StreamCounts, TokenStream

SEQ, SHORT, VOCAB, DOMAINS = 1024, 256, 4096, 22
TOKENS_TIMED = 8_000_000


def make_stream(folder: Path, name: str, *, num_tokens: int, num_parts: int) -> TokenStream:
    """Write the documents of a domain."""
    chance = np.random.default_rng(0)
    segments = []
    for number in range(num_parts):
        lengths = chance.lognormal(6, 1.2, num_tokens // num_parts // 500).astype(int) + 2
        ends = np.cumsum(lengths)
        ends = ends[ends <= num_tokens // num_parts]
        tokens = chance.integers(1, VOCAB, ends[-1], dtype=np.uint16)
        tokens[np.r_[0, ends[:-1]]] = 0
        part = f"{name}-{number:032d}"
        (folder / f"{part}.tokens").write_bytes(tokens.tobytes())
        columns = np.concatenate([ends, np.diff(ends, prepend=0)])
        (folder / f"{part}.documents").write_bytes(columns.astype(DOCUMENT_DTYPE).tobytes())
        counts = StreamCounts(documents=len(ends), tokens=len(tokens))
        segments.append(Segment(part, len(ends), 0, 0, counts))
    return TokenStream(folder=folder, dtype="<u2", segments=segments)


def ours(rows: TrainingRows, batch_size: int, short: ShortRows | None = None) -> Iterator[object]:
    """Yield batches as a data module does."""
    weights = np.arange(1, DOMAINS + 1)
    mixture = Mixture([MixtureStage(0, tuple(weights / weights.sum()))])
    sizes = tuple(rows.rows_by_domain.tolist())
    stage = ShortStage()
    if short is not None:
        stage = ShortStage(num_parts=SEQ // SHORT, end_row=1 << 60, batch_size=batch_size)
    return iter(
        Batches(
            rows=rows,
            order=MixedOrder(mixture=mixture, num_rows=sizes, seed=0).row_at,
            share=Share(num_rows=batch_size),
            short_rows=short,
            stage=stage,
        )
    )


def memory_map(tokens: np.ndarray, batch_size: int) -> Iterator[object]:
    """Yield copies of the tokens of rows in random places."""
    chance = np.random.default_rng(0)
    while True:
        starts = chance.integers(0, len(tokens) - SEQ, batch_size).tolist()
        yield [tokens[start : start + SEQ] + 0 for start in starts]


def arrow(tokens: np.ndarray, folder: Path, batch_size: int) -> Iterator[object]:
    """Yield batches of rows that ``datasets`` maps into memory, in random order."""
    import datasets
    import pyarrow as pa

    datasets.disable_progress_bars()
    num_rows = len(tokens) // SEQ
    places = pa.array(np.arange(num_rows + 1) * SEQ, pa.int32())
    ids = pa.ListArray.from_arrays(places, pa.array(tokens, pa.int32()))
    datasets.Dataset(pa.table({"input_ids": ids})).save_to_disk(folder)
    rows = datasets.load_from_disk(folder).with_format("torch")
    chance = np.random.default_rng(0)
    while True:
        yield rows[chance.integers(0, num_rows, batch_size).tolist()]["input_ids"].long()


def readers(folder: Path, num_tokens: int, batch_size: int) -> dict[str, Iterator[object]]:
    """Return what is measured, by name."""
    found: dict[str, Iterator[object]] = {}
    for num_parts in (1, 300):
        streams = [
            make_stream(
                folder,
                f"{num_parts}-{domain}",
                num_tokens=num_tokens // DOMAINS,
                num_parts=math.ceil(num_parts / DOMAINS),
            )
            for domain in range(DOMAINS)
        ]
        common = {"streams": streams, "start_id": 0, "token_num_bytes": np.full(VOCAB, 4)}
        split = SplitRows(seq_len=SEQ, **common)
        pack_folder = folder / f"pack-{num_parts}"
        pack_folder.mkdir()
        began = time.process_time()
        pack = write_pack(streams, pack_folder, seq_len=SEQ)
        best_fit = BestFitRows(seq_len=SEQ, pack=pack, **common)
        print(
            f"{sum(stream.counts.documents for stream in streams):,} documents packed in "
            f"{time.process_time() - began:.2f} s, "
            f"{best_fit.num_padding / best_fit.num_rows / SEQ:.3%} padding"
        )
        parts = f"{len(streams) * len(streams[0].segments)} parts"
        found[f"split, {parts}"] = ours(split, batch_size)
        found[f"best fit, {parts}"] = ours(best_fit, batch_size)
        short = ShortRows(seq_len=SHORT, whole=split, **common)
        found[f"rows of {SHORT}, {parts}"] = ours(split, batch_size, short)
    tokens = np.random.default_rng(0).integers(1, VOCAB, num_tokens, dtype=np.uint16)
    tokens.tofile(folder / "tokens")
    mapped = np.memmap(folder / "tokens", np.uint16, mode="r")
    found["memory map"] = memory_map(mapped, batch_size)
    found["datasets"] = arrow(tokens, folder / "arrow", batch_size)
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=100_000_000, help="in the store")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 64], help="rows of a batch")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clock: Callable[[], float] = time.process_time
    for batch_size in arguments.batch:
        with tempfile.TemporaryDirectory() as folder:
            found = readers(Path(folder), arguments.tokens, batch_size)
            best = dict.fromkeys(found, 0.0)
            num_batches = TOKENS_TIMED // (batch_size * SEQ)
            for _ in range(arguments.rounds):
                for name, batches in found.items():
                    next(batches)
                    start = clock()
                    for _ in islice(batches, num_batches):
                        pass
                    speed = num_batches * batch_size * SEQ / (clock() - start) / 1e6
                    best[name] = max(best[name], speed)
            print(f"\nbatches of {batch_size}, million tokens a CPU-second (of a memory map's)")
            for name, speed in best.items():
                print(f"  {name:<26}{speed:7.1f} {speed / best['memory map']:8.1%}")


if __name__ == "__main__":
    main()
