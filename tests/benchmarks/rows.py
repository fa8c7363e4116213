"""How fast rows are read from a store, on one core, in one part and in thousands.

    python tests/benchmarks/rows.py

Rows are drawn in the order of training and assembled to batches of 64; beside it stand reading
alone and the same from one memory map. Tokens are random; the clock is the process's CPU time.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pile_lightning.data.order import RowOrder
from pile_lightning.data.packing import TrainingRows
from pile_lightning.data.token_stream import Segment, StreamCounts, TokenStream

SEQ, BATCH, TOKENS, VOCAB = 1024, 64, 200_000_000, 4096
RUNS, BATCHES = 5, 40


def make_stream(folder: Path, num_parts: int) -> TokenStream:
    """Write documents of 700 tokens, to the same number of tokens whatever the parts."""
    each = TOKENS // num_parts
    tokens = np.random.default_rng(0).integers(1, VOCAB, each, dtype=np.uint16)
    tokens[::700] = 0
    counts = StreamCounts(documents=len(tokens[::700]), tokens=each)
    segments = []
    for number in range(num_parts):
        name = f"{num_parts}-{number:032d}"
        (folder / f"{name}.tokens").write_bytes(tokens.tobytes())
        segments.append(Segment(name, counts.documents, 0, 0, counts))
    return TokenStream(folder=folder, dtype="<u2", segments=segments)


def millions_a_second(read: Callable[[np.ndarray], object], rows: TrainingRows) -> float:
    """Return the speed of reading batches in the order of training, the best of five runs."""
    order = RowOrder(num_rows=rows.num_rows, seed=0)
    best = 0.0
    for run in range(RUNS):
        start = time.process_time()
        for batch in range(BATCHES):
            first = (run * BATCHES + batch) * BATCH
            read(order.row_at(np.arange(first, first + BATCH)))
        best = max(best, BATCHES * BATCH * SEQ / (time.process_time() - start))
    return best / 1e6


def main() -> None:
    """Print the figures."""
    for num_parts in (1, 100, 4000):
        with tempfile.TemporaryDirectory() as folder:
            stream = make_stream(Path(folder), num_parts)
            rows = TrainingRows(
                streams=[stream], seq_len=SEQ, start_id=0, token_num_bytes=np.ones(VOCAB, np.int64)
            )
            speed = millions_a_second(rows.batch, rows)
            alone = millions_a_second(
                lambda numbers, stream=stream: [  # type: ignore[misc]
                    stream.read(number * SEQ, number * SEQ + SEQ + 1) for number in numbers.tolist()
                ],
                rows,
            )
            print(f"{num_parts:5} parts: batches {speed:4.0f}, read alone {alone:4.0f}", end="")
            if num_parts == 1:
                path = Path(folder, f"{stream.segments[0].part}.tokens")
                tokens = np.memmap(path, np.uint16, mode="r")
                mapped = millions_a_second(
                    lambda numbers, tokens=tokens: [  # type: ignore[misc]
                        tokens[n * SEQ : n * SEQ + SEQ + 1] + 0 for n in numbers
                    ],
                    rows,
                )
                print(f", one memory map {mapped:4.0f}", end="")
            print(" million tokens a second")


if __name__ == "__main__":
    main()
