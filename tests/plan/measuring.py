"""What a real training step allocates, by the allocator's own records."""

import copy
import gc
import tempfile
import warnings
from typing import NamedTuple

import torch
from lightning import Callback, LightningDataModule, Trainer
from torch.profiler import ProfilerActivity, profile, record_function

from pile_lightning import CausalLM
from pile_lightning.parallel import recompute_blocks
from pile_lightning.plan import Kind, Precision, StepProfile, profile_step

VOCAB = 1024
ROWS, SEQ = 4, 64
_KEPT, _STEPPED = "kept for the backward", "a step has been taken"


class Measured(NamedTuple):
    """Bytes of tensors."""

    weights: int
    gradients: int
    optimizer: int
    kept: int
    """Between forward and backward, beside the three before."""
    peak: int


def random_batch(rows=ROWS, seq=SEQ, vocab=VOCAB):
    """A batch of the contract."""
    ids = torch.randint(vocab, (rows, seq + 1))
    return {
        "input_ids": ids[:, :-1].contiguous(),
        "labels": ids[:, 1:].contiguous(),
        "position_ids": torch.arange(seq).expand(rows, -1).contiguous(),
        "document_ids": torch.zeros(rows, seq, dtype=torch.long),
        "domain": torch.zeros(rows, dtype=torch.long),
        "num_bytes": torch.zeros(rows, dtype=torch.long),
    }


class Repeat:
    """One batch for ever."""

    def __init__(self, batch):
        self.batch = batch

    def __iter__(self):
        while True:
            yield self.batch


class Data(LightningDataModule):
    """Serves it."""

    def train_dataloader(self):
        return Repeat(random_batch())


class Checkpointed(CausalLM):
    """A module whose blocks keep less."""

    kind = "none"

    def configure_model(self):
        if self.network is None:
            super().configure_model()
            recompute_blocks(self.network, self.kind)


class Weigh(Callback):
    """Weighs what lasts, and marks the moments in the records."""

    def on_before_backward(self, trainer, module, loss):
        with record_function(_KEPT):
            pass

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.gradients = sum(p.grad.nbytes for p in module.parameters() if p.grad is not None)

    def on_train_batch_end(self, trainer, module, *_):
        with record_function(_STEPPED):
            pass
        self.weights = sum(p.nbytes for p in module.parameters())
        self.optimizer = sum(
            value.nbytes
            for state in trainer.optimizers[0].state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        )


def measure(
    network, optimizer, *, precision, checkpointing="none", accumulate=1, strategy="auto", devices=1
):
    """Train three steps with the Trainer, and return what the steps after the first hold.

    The first has neither gradients nor optimizer state when it begins.
    """
    module = type("Module", (Checkpointed,), {"kind": checkpointing})(
        network, vocab_size=VOCAB, max_seq_len=SEQ, optimizer=optimizer
    )
    weigh = Weigh()
    gc.collect()  # or cycles of an earlier run are freed, and counted, in this one
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory() as folder,
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as records,
    ):
        warnings.simplefilter("ignore")
        Trainer(
            accelerator="cpu",
            devices=devices,
            strategy=strategy,
            default_root_dir=folder,
            max_steps=3,
            precision=precision,
            accumulate_grad_batches=accumulate,
            callbacks=[weigh],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, Data())
    kept, peak = live_at(records, _KEPT, after=_STEPPED)
    lasting = weigh.weights + weigh.optimizer
    if accumulate > 1:
        lasting += weigh.gradients
    return Measured(weigh.weights, weigh.gradients, weigh.optimizer, kept - lasting, peak)


def live_at(records, mark, *, after):
    """Return the bytes at the last ``mark``, and the peak since the first event named ``after``."""
    events = records.profiler.kineto_results.events()
    now = at_mark = peak = 0
    counts = False
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now) if counts else peak
        elif event.name() == mark:
            at_mark = now
        elif event.name() == after:
            counts = True
    return at_mark, peak


def predict(network, optimizer, *, precision, checkpointing="none", accumulate=1) -> StepProfile:
    """Profile the same step on tensors without values."""
    module = CausalLM(network, vocab_size=VOCAB, max_seq_len=SEQ, optimizer=optimizer)
    return profile_step(
        lambda: copy.deepcopy(module),
        rows=ROWS,
        seq_len=SEQ,
        precision=Precision.of(precision),
        checkpointing=checkpointing,
        accumulate=accumulate > 1,
        device="cpu",
    )


LASTING = range(Kind.WEIGHTS, Kind.CASTS)


def parts_of(profile: StepProfile, peak: int) -> Measured:
    """Return the same parts of a profile."""
    sizes = profile.parameters
    weights = sum(size.num_bytes for size in sizes)
    kept = sum(profile.kept[kind] for kind in Kind if kind not in LASTING)
    return Measured(weights, weights, sum(size.state for size in sizes), kept, peak)
