"""Loader workers that are spawned: what they get is pickled, and rows are the same as without them.

macOS, Windows, and every Python from 3.14 on start processes this way.
"""

import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from pile_lightning import CausalLM, DecoderConfig
from pile_lightning.data import Document, Source, StreamedText, TextData, TextModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]


def texts() -> Iterator[Document]:
    return (Document(f"number {i} " * 20, str(i)) for i in range(60))


class OwnSource(Source):
    def documents(self) -> Iterator[Document]:
        return texts()

    def fingerprint(self) -> str:
        return "1"


class OwnText(TextData):
    def documents(self) -> Iterator[Document]:
        return texts()


class OwnStream(StreamedText):
    def documents(self) -> Iterator[Document]:
        return texts()


class Unpicklable(OwnStream):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.clean = lambda text: text


KINDS: dict[str, Callable[..., TextModule]] = {
    "prepared": lambda **settings: TextData(OwnSource(name="own"), **settings),
    "streamed": lambda **settings: StreamedText(OwnSource(name="own"), num_lanes=8, **settings),
    "documents": OwnText,
    "streamed documents": lambda **settings: OwnStream(num_lanes=8, **settings),
}


def made(kind: str, cache: Path, **settings: Any) -> TextModule:
    defaults = {"tokenizer": "bpe:300", "seq_len": 32, "batch_size": 4, "val_fraction": 0.3}
    data = KINDS[kind](**defaults | settings, cache_dir=str(cache), num_proc=1)
    data.prepare_data()
    return data


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def spawn() -> Iterator[None]:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def fitted(data: TextModule, **settings: Any) -> TextModule:
    """Return the data module as it is while a trainer uses it."""
    model = CausalLM(
        DecoderConfig(d_model=16, num_layers=1), vocab_size=data.vocab_size, max_seq_len=32
    )
    Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        **settings,
    ).fit(model, data)
    return data


@pytest.mark.parametrize("packing", ["split", "best_fit"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_worker_gets_is_pickled_small_and_reads_the_same(
    cache: Path, kind: str, packing: str
) -> None:
    data = fitted(made(kind, cache, packing=packing))
    for loader in (data.train_dataloader(), data.val_dataloader()):
        pickled = pickle.dumps(loader.batches)  # type: ignore[union-attr]
        assert b"Trainer" not in pickled
        for here, there in zip(
            islice(loader.batches, 3),  # type: ignore[union-attr]
            islice(pickle.loads(pickled), 3),
            strict=True,
        ):
            batches = [b.batch if hasattr(b, "batch") else b for b in (here, there)]
            for name, column in batches[0].items():
                assert torch.equal(column, batches[1][name])  # type: ignore[arg-type]


def test_what_cannot_be_pickled_is_one_line(cache: Path, spawn: None) -> None:
    data = Unpicklable(num_lanes=8, tokenizer="byte", num_workers=1, cache_dir=str(cache))
    data.prepare_data()
    with pytest.raises(TypeError, match=r"started by 'spawn'.*lambda.*or set num_workers=0"):
        next(iter(data.train_dataloader()))


@pytest.mark.slow  # each spawned process imports torch
@pytest.mark.parametrize("kind", ["documents", "streamed"])
def test_training_and_validation_with_spawned_workers(cache: Path, spawn: None, kind: str) -> None:
    data = fitted(made(kind, cache, num_workers=1))
    assert data.state_dict()["rows"] == 8
    there, here = (d.val_dataloader() for d in (data, made(kind, cache)))
    for one, other in zip(there, here, strict=True):
        assert torch.equal(one["input_ids"], other["input_ids"])
