"""What preparing costs beside the encoder alone, and how much memory it takes.

    python tests/benchmarks/prepare.py              # 2 GB for the memory, about ten minutes
    python tests/benchmarks/prepare.py --mb 200

The text is the running Python's standard library with its tests, as jsonl, repeated. Speeds are of
one core, in CPU time, over 20 MB, each in a process of its own; the best of three runs counts.
Memory is the largest resident set of any process while all of the text is prepared on all cores.
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
from pathlib import Path

from pile_lightning.data import FileSource
from pile_lightning.data.encoders import CheckedEncoder
from pile_lightning.data.prepare import Preparation
from pile_lightning.data.tiktoken_encoder import TiktokenEncoder
from pile_lightning.data.tokenizers import FastTokenizer, Tokenizer

SAMPLE_BYTES = 20 << 20
FILE_BYTES = 256 << 20
RUNS = 3


def texts() -> list[str]:
    """Return the sources of the standard library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    read = (path.read_bytes().decode("utf-8", errors="ignore") for path in files)
    return [text for text in read if text]


def write(folder: Path, num_bytes: int) -> None:
    """Write that many bytes of jsonl, in files of 256 MB."""
    folder.mkdir()
    lines = [json.dumps({"text": text}) + "\n" for text in texts()]
    written = number = 0
    while written < num_bytes:
        with (folder / f"{number}.jsonl").open("w") as file:
            while written < num_bytes and file.tell() < FILE_BYTES:
                for line in lines:
                    written += file.write(line)
                    if written >= num_bytes:
                        break
        number += 1


def encoder_alone(tokenizer: FastTokenizer, sample: list[str]) -> float:
    """Return the CPU seconds of the encoder in use, on texts that are in memory."""
    chosen = tokenizer._encoder
    fast = chosen.fast if isinstance(chosen, CheckedEncoder) else None

    def encode(texts: list[str]) -> None:
        if isinstance(fast, TiktokenEncoder):
            for text in texts:
                fast._encoding.encode_to_numpy(text, disallowed_special=())
        else:
            tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False)

    start = time.process_time()
    batch, size = [], 0
    for text in sample:
        batch.append(text)
        size += len(text)
        if size >= 1 << 20:
            encode(batch)
            batch, size = [], 0
    encode(batch)
    return time.process_time() - start


def ours(folder: Path, tokenizer: Path) -> float:
    """Return the CPU seconds of preparing, in this process."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.process_time()
        Preparation(
            sources=[FileSource(folder)],
            tokenizer=str(tokenizer),
            val_fraction=0.05,
            path=Path(cache, "store"),
            num_proc=1,
        ).run(quiet=True)
        return time.process_time() - start


def datasets_map(folder: Path, tokenizer: FastTokenizer) -> float:
    """Return the CPU seconds of ``datasets``: load, map, written as arrow."""
    import datasets

    datasets.disable_progress_bars()

    def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        found = tokenizer.backend.encode_batch_fast(rows["text"], add_special_tokens=False)
        return {"ids": [encoding.ids for encoding in found]}

    with tempfile.TemporaryDirectory() as cache:
        start = time.process_time()
        rows = datasets.load_dataset(
            "json", data_files=str(folder / "*.jsonl"), split="train", cache_dir=cache
        )
        rows.map(encode, batched=True, batch_size=100, remove_columns=["text"])
        return time.process_time() - start


def measure(what: str, folder: Path, tokenizer: Path) -> float:
    """Return what one run takes, in this process."""
    loaded = Tokenizer.load(tokenizer)
    assert isinstance(loaded, FastTokenizer)
    if what == "ours":
        return ours(folder, tokenizer)
    if what == "datasets":
        return datasets_map(folder, loaded)
    if what == "encoder":
        sample = [document.text for document in FileSource(folder).documents()]
        return encoder_alone(loaded, sample)
    with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
        Preparation(
            sources=[FileSource(folder)],
            tokenizer=str(tokenizer),
            val_fraction=0.05,
            path=Path(cache, "store"),
        ).run()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return max(own_peak(), children)


def own_peak() -> float:
    """Return this process's largest resident set in MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # not getrusage: on Linux that counts what stood here before exec, too
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def in_a_process(what: str, folder: Path, tokenizer: Path) -> float | None:
    """Return what one run takes, in a process of its own; None where something is not installed."""
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, __file__, "--run", what, str(folder), str(tokenizer)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    return None if done.returncode else float(done.stdout.split()[-1])


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=2000, help="size of the text for the memory")
    parser.add_argument("--vocab", type=int, default=4096, help="size of the tokenizer")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        what, folder, tokenizer = arguments.run
        print(measure(what, Path(folder), Path(tokenizer)))
        return
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root / "sample", SAMPLE_BYTES)
        Preparation(
            sources=[FileSource(root / "sample")],
            tokenizer=f"bpe:{arguments.vocab}",
            val_fraction=0.05,
            path=root / "cache/store",
        ).run(quiet=True)
        tokenizer = root / "cache/store/tokenizer.json"
        num_bytes = sum(len(d.text.encode()) for d in FileSource(root / "sample").documents())
        best: dict[str, float] = {}
        for _ in range(RUNS):
            for what in ("encoder", "ours", "datasets"):
                seconds = in_a_process(what, root / "sample", tokenizer)
                if seconds is not None:
                    best[what] = min(seconds, best.get(what, seconds))
        for what, seconds in best.items():
            share = best["encoder"] / seconds
            print(f"{what:10} {num_bytes / seconds / 1e6:6.2f} MB a CPU-second {share:7.1%}")
        write(root / "text", arguments.mb * 10**6)
        began = time.monotonic()
        peak = in_a_process("memory", root / "text", tokenizer)
        print(f"{arguments.mb} MB of jsonl on all cores: {time.monotonic() - began:.0f} s")
        print(f"largest process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
