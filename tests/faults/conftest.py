"""Runs of two ranks, without the command line."""

import pytest
from lightning import Trainer, seed_everything

from pile_lightning.callbacks import LastCheckpoint, MetricsCsv, Preemption
from pile_lightning.checkpoint import AtomicCheckpointIO
from pile_lightning.data import TextData
from pile_lightning.modules import CausalLM
from pile_lightning.nn import DecoderConfig
from tests.faults.probe import Probe
from tests.faults.rank_processes import Ranks

SEQ = 32


@pytest.fixture
def ranks(tmp_path, corpus, cache):
    """Make a run of two ranks that goes on by itself; it scores and saves now and then."""
    made = []

    def fit(folder, *callbacks, model=CausalLM, max_steps=60, num_workers=0, **settings):
        seed_everything(0, verbose=False)
        last = folder / "checkpoints/last.ckpt"
        defaults = {
            "accelerator": "cpu",
            "devices": 2,
            "strategy": "ddp",
            "default_root_dir": folder,
            "callbacks": [*callbacks, Probe(), LastCheckpoint(every_n_steps=4), Preemption()],
            "plugins": [AtomicCheckpointIO()],
            "logger": MetricsCsv(folder),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "max_steps": max_steps,
            "log_every_n_steps": 1,
            "check_val_every_n_epoch": None,
            "val_check_interval": 5,
            "limit_val_batches": 2,
            "use_distributed_sampler": False,
        }
        network = DecoderConfig(d_model=32, num_layers=1)
        data = TextData(
            str(corpus),
            tokenizer="byte",
            seq_len=SEQ,
            batch_size=4,
            val_fraction=0.2,
            cache_dir=str(cache),
            num_workers=num_workers,
        )
        Trainer(**(defaults | settings)).fit(
            model(network, vocab_size=257, max_seq_len=SEQ),
            data,
            ckpt_path=last if last.exists() else None,
        )

    def make(name="run", ranks=2):
        made.append(Ranks(tmp_path / name, fit, ranks))
        return made[-1]

    yield make
    for run in made:
        run.end()
