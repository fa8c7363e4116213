"""A tiny model, its data and a quiet trainer, for callbacks to watch."""

import warnings

import pytest
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ProgressBar

from pile_lightning.checkpoint import AtomicCheckpointIO
from pile_lightning.data import TextData
from pile_lightning.modules import CausalLM
from pile_lightning.nn import DecoderConfig
from pile_lightning.optim import AdamWConfig

SEQ = 32


@pytest.fixture(autouse=True)
def quiet():
    for message in (
        ".*treespec, LeafSpec.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*callbacks used to create the checkpoint.*",
        "Couldn't infer the batch indices.*",
    ):
        warnings.filterwarnings("ignore", message=message)


@pytest.fixture
def make_data(corpus, cache):
    """Make a data module of byte rows; an optimizer step is 4 rows of 32 tokens."""

    def make(**settings):
        defaults = {
            "sources": str(corpus),
            "tokenizer": "byte",
            "seq_len": SEQ,
            "batch_size": 4,
            "val_fraction": 0.2,
            "cache_dir": str(cache),
        }
        return TextData(**(defaults | settings))

    return make


@pytest.fixture
def make_model():
    """Make a model of one block, the same each time."""

    def make(kind=CausalLM, vocab_size=257, **network):
        seed_everything(0, verbose=False)
        config = DecoderConfig(d_model=32, num_layers=1, **network)
        return kind(config, vocab_size=vocab_size, max_seq_len=SEQ, optimizer=AdamWConfig(lr=1e-2))

    return make


@pytest.fixture
def make_trainer(tmp_path):
    """Make a trainer of four steps in the folder ``run``, without validation."""

    def make(*callbacks, **settings):
        defaults = {
            "accelerator": "cpu",
            "devices": 1,
            "default_root_dir": tmp_path / "run",
            "callbacks": list(callbacks),
            "plugins": [AtomicCheckpointIO()],
            "logger": False,
            "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
            "enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks),
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "max_steps": 4,
            "log_every_n_steps": 1,
            "check_val_every_n_epoch": None,
            "limit_val_batches": 0,
        }
        return Trainer(**(defaults | settings))

    return make


@pytest.fixture
def validating():
    """Trainer settings: score one batch every second step."""
    return {"limit_val_batches": 1, "val_check_interval": 2}
