"""A Llama of Hugging Face's, trained by their own ``Trainer`` in their own process."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pile_lightning.device import has_fast_bfloat16
from tests.benchmarks.quality.peer import Peer
from tests.benchmarks.quality.scoring import score
from tests.benchmarks.quality.trained import Scored, Trained

__all__ = ["HUGGING_FACE", "HuggingFace"]

DEFAULTS: dict[str, Any] = {
    "d_model": 256,
    "layers": 4,
    "heads": 4,
    "seq_len": 256,
    "batch_size": 8,
    "lr": 3e-3,
    "schedule": "linear",
    "compile": False,
    "seed": 0,
}

HUGGING_FACE = (
    "lr=1e-3",
    "",
    "lr=6e-3",
    "compile=true",
    "lr=3e-3 batch_size=4 seq_len=128",
    "lr=3e-3 batch_size=8 seq_len=64",
    "lr=3e-3 d_model=128 heads=2 batch_size=8 seq_len=128",
    "lr=6e-3 d_model=128 heads=2 batch_size=8 seq_len=64",
)
"""What is tried: rates, and shorter rows, for the Trainer, too, is short of steps."""


@dataclass(frozen=True, kw_only=True)
class HuggingFace(Peer):
    """One of its configs."""

    defaults: ClassVar[dict[str, Any]] = DEFAULTS
    system: ClassVar[str] = "Hugging Face Trainer"

    @property
    def tokens_a_step(self) -> int:
        """Positions of a batch."""
        return int(self.options["batch_size"] * self.options["seq_len"])

    def train(self, steps: int, folder: Path) -> Trained:
        """Train for ``steps`` steps."""
        settings = self.options | {
            "steps": steps,
            "tokens": str((self.tokens / "train.bin").absolute()),
            "vocab_size": self.data.vocab_size,
            "bf16": has_fast_bfloat16("cpu"),
        }
        script = Path(__file__).with_name("trainer_run.py")
        started = self.run(str(script), json.dumps(settings), folder=folder)
        clock = json.loads((folder / "clock.json").read_text())
        return Trained(clock["ended"] - started, clock["seconds_a_step"], steps)

    def score(self, folder: Path) -> Scored:
        """Score the weights that it saved."""
        from transformers import LlamaForCausalLM, logging

        logging.disable_progress_bar()
        network = LlamaForCausalLM.from_pretrained(folder / "model").eval()
        return score(
            network,
            lambda batch: network(batch["input_ids"]).logits,
            self.data,
            context=self.options["seq_len"],
            max_batches=self.val_batches,
        )
