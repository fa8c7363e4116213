"""A batch_size that is set after construction, as Lightning's BatchSizeFinder does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from pile_lightning import CausalLM, DecoderConfig
from pile_lightning.data import StreamedText, TextData

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "prepared": (TextData, {}),
    "streamed": (StreamedText, {"num_lanes": 8}),
}


@pytest.fixture(params=KINDS)
def data(request: pytest.FixtureRequest, folder: Path, cache: Path) -> Any:
    kind, own = KINDS[request.param]
    made = kind(
        str(folder), tokenizer="byte", seq_len=16, batch_size=8, cache_dir=str(cache), **own
    )
    made.prepare_data()
    return made


def train(data: Any, *batch_sizes: int) -> None:
    """Train one epoch of two steps with each batch size, with one trainer."""
    model = CausalLM(
        DecoderConfig(d_model=16, num_layers=1), vocab_size=data.vocab_size, max_seq_len=16
    )
    trainer = Trainer(
        max_epochs=0,
        max_steps=2 * len(batch_sizes),
        limit_train_batches=2,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    for epoch, batch_size in enumerate(batch_sizes, 1):
        data.batch_size = batch_size
        trainer.fit_loop.max_epochs = epoch
        trainer.fit(model, data)


def test_rows_are_counted(data: Any) -> None:
    train(data, 2, 4)
    assert data.state_dict()["rows"] == 2 * 2 + 2 * 4


def test_a_run_goes_on_with_the_rows_behind(data: Any) -> None:
    """After sizes of 2 and 4, a resumed run reads the very next row: none twice, none lost."""
    train(data, 2, 4)
    state = data.state_dict()
    settings = {"tokenizer": "byte", "seq_len": 16, "batch_size": 4}
    own = {"num_lanes": 8} if isinstance(data, StreamedText) else {}
    later, whole = (
        type(data)(list(data.sources), cache_dir=str(data.cache_dir), **settings, **own)
        for _ in range(2)
    )
    later.load_state_dict(state)
    first = next(iter(later.train_dataloader()))["input_ids"]
    rows = iter(whole.train_dataloader())
    batches = [next(rows)["input_ids"] for _ in range(4)]
    assert torch.equal(first, batches[3])


@pytest.mark.parametrize("batch_size", [0, 3])
def test_one_that_does_not_fit_is_refused(data: Any, batch_size: int) -> None:
    data.batch_size = batch_size
    if batch_size == 3 and isinstance(data, TextData):
        return
    with pytest.raises(ValueError, match=rf"batch_size={batch_size}"):
        data.train_dataloader()
