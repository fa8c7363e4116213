"""Tokens a second, FLOP/s, and the share of the device's peak that they are."""

import re
import time
from typing import Any, Protocol, runtime_checkable

import torch
from lightning import Callback, LightningModule, Trainer

from pile_lightning.batch import TokenBatch
from pile_lightning.callbacks.data_rank import DataRank

__all__ = ["DENSE_PEAK_FLOPS", "Throughput", "dense_peak"]

DENSE_PEAK_FLOPS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "V100": 125e12,
    "T4": 65e12,
}
"""Matrix products in bfloat16 (float16 before Ampere) a second, by a part of the device's name.

Source: NVIDIA's data sheets, whose headline figure is with sparsity and twice as large.
"""


def dense_peak(device_name: str) -> float | None:
    """Return the dense 16-bit peak of a GPU in FLOP/s, or None where it is not known.

    Example:
        >>> dense_peak("NVIDIA H100 80GB HBM3") / 1e12
        989.0
        >>> dense_peak("NVIDIA L40S") / 1e12  # not the L4's
        362.0
    """
    # whole words: an L40 is no L4
    known = [name for name in DENSE_PEAK_FLOPS if re.search(rf"\b{name}\b", device_name)]
    return DENSE_PEAK_FLOPS[max(known, key=len)] if known else None


@runtime_checkable
class Counted(Protocol):
    """A network that knows its training FLOPs."""

    def flops_per_token(self, seq_len: int) -> float:
        """Return the FLOPs of forward and backward for one token."""


class Throughput(Callback):
    """Log ``throughput/tokens_per_second``, and ``throughput/tflops`` and ``mfu`` where known.

    Counted over all ranks and over training alone: validation, and what follows on it, stops the
    clock. ``throughput/tokens`` is all tokens trained on so far; it goes on at a resume.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._counted = 0
        self._seconds = 0.0
        self._since: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the tokens so far."""
        return {"tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from the checkpoint."""
        self.tokens = state_dict["tokens"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._counted, self._seconds, self._since = 0, 0.0, time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: TokenBatch, batch_idx: int
    ) -> None:
        """Start the clock again, after what other callbacks do when validation ends."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: TokenBatch,
        batch_idx: int,
    ) -> None:
        """Count, and log every ``log_every_n_steps`` steps."""
        tokens = batch["input_ids"].numel() * DataRank.of(trainer).num_ranks
        self.tokens += tokens
        self._counted += tokens
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step % trainer.log_every_n_steps:
            return
        now = time.perf_counter()
        seconds = self._seconds + now - (self._since or now)
        rate = self._counted / seconds
        self._counted, self._seconds, self._since = 0, 0.0, now
        values = {"throughput/tokens": float(self.tokens), "throughput/tokens_per_second": rate}
        counted = getattr(pl_module, "network", pl_module)  # several networks: their module knows
        if isinstance(counted, Counted):
            flops = rate * counted.flops_per_token(batch["input_ids"].shape[1])
            values["throughput/tflops"] = flops / 1e12
            peak = self._peak(pl_module.device)
            if peak is not None:
                values["throughput/mfu"] = flops / (peak * trainer.world_size)
        pl_module.log_dict(values)

    @staticmethod
    def _peak(device: torch.device) -> float | None:
        return dense_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
