"""A Llama of Hugging Face's, trained by their own ``Trainer`` in their own process."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pile_lightning.device import has_fast_bfloat16
from tests.benchmarks.quality.peer import Peer
from tests.benchmarks.quality.scoring import bits_per_byte
from tests.benchmarks.quality.trained import Trained

__all__ = ["HUGGING_FACE", "HuggingFace", "why_not_trainer"]

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


def why_not_trainer(python: str) -> str | None:
    """Say what the ``Trainer`` lacks under ``python``, or None where it runs."""
    if shutil.which(python) is None:
        return f"there is no {python}; name a Python that has transformers and accelerate"
    command = [python, "-c", "import torch, transformers, accelerate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return f"{done.stderr.splitlines()[-1]} under {python}; pip install what is missing there"


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

    def score(self, folder: Path) -> float:
        """Score the weights that it saved."""
        from transformers import LlamaForCausalLM, logging

        logging.disable_progress_bar()
        network = LlamaForCausalLM.from_pretrained(folder / "model").eval()
        return bits_per_byte(
            lambda batch: network(batch["input_ids"]).logits,
            self.data,
            context=self.options["seq_len"],
            max_batches=self.val_batches,
        )
