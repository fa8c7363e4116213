"""``TextData`` of documents from nowhere."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pile_lightning.data import Document, Skipped, TextData

MakeData = Callable[..., TextData]

FORK = multiprocessing.get_context("fork")


class Numbers(TextData):
    """Documents from nowhere; each is noted in a file when it is read."""

    def __init__(self, *, count: int = 60, log: str = "", seconds: float = 0.0, **kwargs: object):
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.count, self.log, self.seconds = count, log, seconds

    def documents(self) -> Iterator[Document | Skipped]:
        for i in range(self.count):
            if self.log:
                with Path(self.log).open("a") as file:
                    file.write(f"{i}\n")
            time.sleep(self.seconds)
            yield Document(f"number {i}", f"number {i}")


def numbers(cache: Path, **settings: object) -> Numbers:
    return Numbers(**({"tokenizer": "byte", "cache_dir": str(cache), "seq_len": 8} | settings))


def texts_of(data: TextData, split: str) -> list[str]:
    return [
        data.tokenizer.decode(ids)
        for stream in data.store.streams(split)
        for ids in stream.documents()
    ]
