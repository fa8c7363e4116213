"""What streaming costs beside the encoder alone, and how much memory it takes.

    python tests/benchmarks/stream.py               # 200 MB, about two minutes
    python tests/benchmarks/stream.py --mb 2000     # the memory over 2 GB, about five

The text is the running Python's standard library, as jsonl, repeated. Speeds are of one core, in
CPU time, of rows of 1024 from 64 lanes, over 48 MB. The encoder alone is timed on the very texts
that the stream gives to it, right before or after, in turns, so that both see the same machine;
what the library returns is thrown away. Memory is the resident set of a process that reads every
document once, beside what its imports take.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core; read when the library is loaded

import numpy as np

from pile_lightning.data import FileSource, StreamedText
from pile_lightning.data.encoders import CheckedEncoder, Encoder
from pile_lightning.data.tiktoken_encoder import TiktokenEncoder
from pile_lightning.data.tokenizers import FastTokenizer

SEQ_LEN, BATCH_SIZE, NUM_LANES = 1024, 8, 64
SAMPLE_BYTES, FILE_BYTES = 48 << 20, 64 << 20
ROUNDS = 3


def write(folder: Path, num_bytes: int) -> None:
    """Write that many bytes of jsonl, in files of 64 MB."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    texts = [path.read_bytes().decode("utf-8", errors="ignore") for path in files]
    lines = [json.dumps({"text": text}).encode() + b"\n" for text in texts if text]
    folder.mkdir()
    written = number = 0
    while written < num_bytes:
        with (folder / f"{number:04}.jsonl").open("wb") as file:
            while written < num_bytes and file.tell() < FILE_BYTES:
                for line in lines:
                    written += file.write(line)
                    if written >= num_bytes:
                        break
        number += 1


def streamed(folder: Path, tokenizer: str, cache: Path, **settings: Any) -> StreamedText:
    """Return the stream of a folder."""
    data = StreamedText(
        FileSource(folder),
        tokenizer=tokenizer,
        seq_len=SEQ_LEN,
        batch_size=BATCH_SIZE,
        num_lanes=NUM_LANES,
        val_fraction=0.001,
        val_bytes=1000,
        cache_dir=str(cache),
        num_proc=1,
        **settings,
    )
    data.prepare_data()
    return data


def alone(tokenizer: FastTokenizer, encoder: Encoder) -> Callable[[list[str]], Any]:
    """Return what a library does by itself."""
    if isinstance(encoder, TiktokenEncoder):
        encode = encoder._encoding.encode_to_numpy
        return lambda texts: [encode(text, disallowed_special=()) for text in texts]
    return lambda texts: tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False)


class Beside:
    """An encoder, and the library alone on the same texts in turns."""

    def __init__(self, tokenizer: FastTokenizer, encoder: Encoder) -> None:
        inner = encoder.fast if isinstance(encoder, CheckedEncoder) else encoder
        assert inner is not None
        self.encoder, self.alone, self.name = encoder, alone(tokenizer, inner), encoder.name
        self.seconds = self.bookkeeping = 0.0
        self.num_bytes = self.num_tokens = self.num_calls = 0

    def encode(self, texts: list[str], /) -> list[np.ndarray[Any, Any]]:
        """Return the ids, and time the library alone."""
        self.num_calls += 1
        first = self.num_calls % 2 == 0
        if first:
            self._time(texts)
        found = self.encoder.encode(texts)
        if not first:
            self._time(texts)
        start = time.process_time()
        self.num_bytes += sum(len(text.encode()) for text in texts)
        self.num_tokens += sum(map(len, found)) + len(found)
        self.bookkeeping += time.process_time() - start
        return found

    def _time(self, texts: list[str]) -> None:
        start = time.process_time()
        self.alone(texts)
        self.seconds += time.process_time() - start


def measure(data: StreamedText, encoder: Encoder) -> tuple[float, float, float]:
    """Return MB a CPU-second of the library alone and of the stream, and tokens of the stream."""
    tokenizer = data.tokenizer
    assert isinstance(tokenizer, FastTokenizer)
    beside = Beside(tokenizer, encoder)
    tokenizer.__dict__["_encoder"] = beside
    start = time.process_time()
    # all of it, so that what is encoded is what comes out
    for _ in data.train_dataloader():
        pass
    rows = time.process_time() - start - beside.seconds - beside.bookkeeping
    num_bytes = beside.num_bytes / 1e6
    return num_bytes / beside.seconds, num_bytes / rows, beside.num_tokens / rows / 1e6


def with_datasets(folder: Path, tokenizer: FastTokenizer, num_tokens: int) -> float:
    """Return tokens (in millions) a CPU-second of `datasets`, streamed, encoded and packed."""
    import datasets

    datasets.disable_progress_bars()
    files = str(folder / "*.jsonl")
    stream = datasets.load_dataset("json", data_files=files, split="train", streaming=True)

    def packed() -> Iterator[dict[str, list[int]]]:
        left: list[int] = []
        for texts in stream.iter(batch_size=64):
            found = tokenizer.backend.encode_batch_fast(texts["text"], add_special_tokens=False)
            for encoding in found:
                left += [tokenizer.start_id, *encoding.ids]
            while len(left) > SEQ_LEN:
                yield {"input_ids": left[:SEQ_LEN], "labels": left[1 : SEQ_LEN + 1]}
                left = left[SEQ_LEN:]

    rows = packed()
    next(rows)
    start = time.process_time()
    for _ in range(num_tokens // SEQ_LEN):
        row = next(rows)
        assert np.array(row["input_ids"]).shape == np.array(row["labels"]).shape
    return num_tokens / (time.process_time() - start) / 1e6


def memory(folder: Path, tokenizer: str, cache: Path) -> tuple[float, float]:
    """Return the largest resident set, in MB, of imports alone and while all is read once."""
    before = peak()
    data = streamed(folder, tokenizer, cache, once=True)
    for _ in data.train_dataloader():
        pass
    return before, peak()


def peak() -> float:
    """Return this process's largest resident set in MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # not getrusage: on Linux that counts what stood here before exec, too
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=200, help="size of the text for the memory")
    parser.add_argument("--memory", nargs=3, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        folder, tokenizer, cache = arguments.memory
        print(*memory(folder, str(tokenizer), cache))
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root / "sample", SAMPLE_BYTES)
        data = streamed(root / "sample", "bpe:4096", root / "cache", once=True)
        tokenizer = data.tokenizer
        assert isinstance(tokenizer, FastTokenizer)
        chosen = tokenizer._encoder
        encoders = [chosen]
        if isinstance(chosen, CheckedEncoder):
            encoders.append(chosen.reference)
        best: dict[str, tuple[float, float, float]] = {}
        for _ in range(ROUNDS):
            for encoder in encoders:
                library, stream, tokens = measure(data, encoder)
                found = (stream / library, library, tokens)
                best[encoder.name] = max(best.get(encoder.name, found), found)
        for encoder_name, (share, library, tokens) in best.items():
            print(
                f"{encoder_name:10} alone {library:6.2f} MB a CPU-second; streamed "
                f"{share * library:6.2f} ({share:.1%}), {tokens:.2f} M tokens a CPU-second"
            )
        tokens = with_datasets(root / "sample", tokenizer, 10_000_000)
        print(f"datasets, streamed, tokenizers, packed: {tokens:.2f} M tokens a CPU-second")
        write(root / "text", arguments.mb * 10**6)
        tokenizer.save(root / "tokenizer.json")
        command = [sys.executable, __file__, "--memory", str(root / "text")]
        command += [str(root / "tokenizer.json"), str(root / "cache")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        before, most = map(float, done.stdout.split()[-2:])
        print(f"{arguments.mb} MB read once: {most:.0f} MB in memory, {before:.0f} of it imports")


if __name__ == "__main__":
    main()
