"""Sources whose shards are cheap to read and easy to tell apart."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pile_lightning.data import Document, FileSource, Skipped
from pile_lightning.data.prepare import Preparation
from pile_lightning.data.source import Shard, ShardedSource, Source
from pile_lightning.data.store import SPLITS, TokenStore

FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, kw_only=True)
class Numbers(ShardedSource):
    """Shards of ten numbers each, noted in a file when they are read."""

    name: str = "numbers"
    count: int = field(default=6)
    log: str = ""
    seconds: float = 0.0
    bad: int = 0
    version: str = ""
    fail: str = ""
    domain_of: Callable[[int], str | None] = field(default=lambda number: None)
    size: int = 1 << 25

    def shards(self) -> Sequence[Shard]:
        return [
            Shard(name=f"{i:03d}", num_bytes=self.size, identity=f"{self.bad} {self.version}")
            for i in range(self.count)
        ]

    def read(self, shard: Shard, start: int = 0) -> Iterator[Document | Skipped]:
        for i in range(10):
            number = 10 * int(shard.name) + i
            if self.log:
                with Path(self.log).open("a") as file:
                    file.write(f"{number}\n")
            if str(number) == self.fail:
                raise FileNotFoundError(f"number {number} is gone")
            time.sleep(self.seconds)
            if i < self.bad:
                yield Skipped("broken", str(number))
            else:
                yield Document(f"number {number}", str(number), self.domain_of(number))


def prepare(
    cache: Path, *sources: Source, name: str = "store", quiet: bool = True, **settings: Any
) -> TokenStore:
    defaults = {"tokenizer": "byte", "val_fraction": 0.2, "num_proc": 2}
    return Preparation(sources=sources, path=cache / name, **(defaults | settings)).run(quiet=quiet)


def texts(store: TokenStore, *splits: str) -> list[str]:
    return [
        store.tokenizer.decode(ids)
        for split in splits or SPLITS
        for stream in store.streams(split)
        for ids in stream.documents()
    ]


def numbers(count: int) -> list[str]:
    return sorted(f"number {i}" for i in range(count))


def files(folder: Path, *names: str, size: int = 4000) -> FileSource:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} says that " + f"{name} is {size}. " * (size // 12))
    return FileSource(folder, name="files")


def part_files(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (cache / "parts").iterdir()}
