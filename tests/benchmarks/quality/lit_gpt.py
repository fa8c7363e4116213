"""litgpt's own ``pretrain`` command, run as it is; its config and rows of tokens are given."""

import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from pile_lightning.device import has_fast_bfloat16
from pile_lightning.metrics import BitsPerByte
from tests.benchmarks.quality.changes import write_config
from tests.benchmarks.quality.peer import Peer
from tests.benchmarks.quality.scoring import held_out
from tests.benchmarks.quality.trained import Scored, Trained

__all__ = ["LitGpt"]

DEFAULTS: dict[str, Any] = {
    "d_model": 256,
    "layers": 4,
    "heads": 4,
    "seq_len": 256,
    "batch_size": 8,
    "lr": 1e-3,
    "warmup": 0.05,
    "seed": 0,
}

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class LitGpt(Peer):
    """A Llama by litgpt's ``GPT``.

    Its own are the command, the network and its init, compilation, loss, loop, clipping and
    schedule (warm-up, cosine to a tenth). Ours are the rows, and the optimizer's settings, which
    are those of its shipped pretraining configs but for the rate.
    """

    defaults: ClassVar[dict[str, Any]] = DEFAULTS
    system: ClassVar[str] = "litgpt"

    @property
    def tokens_a_step(self) -> int:
        """Positions of a batch."""
        return int(self.options["batch_size"] * self.options["seq_len"])

    def config(self, steps: int) -> dict[str, Any]:
        """Return what ``litgpt pretrain`` is given."""
        own = self.options
        width = own["d_model"]
        return {
            "model_name": "tokens",
            "model_config": {
                "name": "tokens",
                "block_size": own["seq_len"],
                "vocab_size": self.data.vocab_size,
                "padded_vocab_size": self.data.vocab_size,
                "n_layer": own["layers"],
                "n_head": own["heads"],
                "n_embd": width,
                "rotary_percentage": 1.0,
                "parallel_residual": False,
                "bias": False,
                "norm_class_name": "RMSNorm",
                "mlp_class_name": "LLaMAMLP",
                "intermediate_size": 64 * max(1, round(8 * width / 3 / 64)),
            },
            "out_dir": "out",
            "precision": "bf16-mixed" if has_fast_bfloat16("cpu") else "32-true",
            "data": {
                "class_path": "litgpt_rows.TokenRows",
                "init_args": {"folder": str(self.tokens.absolute()), "seed": own["seed"]},
            },
            "train": {
                "save_interval": None,
                "log_interval": 1,
                "global_batch_size": own["batch_size"],
                "micro_batch_size": own["batch_size"],
                "lr_warmup_steps": max(1, round(own["warmup"] * steps)),
                "max_tokens": steps * self.tokens_a_step,
                "max_norm": 1.0,
                "min_lr": own["lr"] / 10,
                "tie_embeddings": True,
            },
            "eval": {"interval": steps + 1, "final_validation": False},
            "optimizer": {
                "class_path": "torch.optim.AdamW",
                "init_args": {"lr": own["lr"], "weight_decay": 0.1, "betas": [0.9, 0.95]},
            },
            "devices": 1,
            "logger_name": "csv",
            "seed": own["seed"],
        }

    def train(self, steps: int, folder: Path) -> Trained:
        """Run its ``pretrain`` for ``steps`` steps."""
        folder.mkdir(parents=True, exist_ok=True)
        # where it is run it finds modules
        (folder / "litgpt_rows.py").symlink_to(HERE / "litgpt_rows.py")
        config = write_config(self.config(steps), folder / "pretrain.yaml")
        command = ("-m", "litgpt", "pretrain", f"--config={config.absolute()}")
        started = self.run(*command, folder=folder)
        log = (folder / "log.txt").read_text(errors="replace")
        times = [float(ms) / 1000 for ms in re.findall(r"iter time: ([\d.]+) ms", log)]
        return Trained(
            seconds=(folder / "out/final/lit_model.pth").stat().st_mtime - started,
            seconds_a_step=statistics.fmean(times[len(times) // 2 :]),
            steps=steps,
        )

    def score(self, folder: Path) -> Scored:
        """Score what it saved: its network's nats, had under its Python, by our held-out bytes."""
        batches = list(
            held_out(self.data, context=self.options["seq_len"], max_batches=self.val_batches)
        )
        rows = {
            "input_ids": torch.cat([batch["input_ids"] for batch in batches]),
            "labels": torch.cat([batch["labels"] for batch in batches]),
        }
        folder = folder.absolute()
        np.savez(folder / "rows.npz", **{name: each.numpy() for name, each in rows.items()})
        places = ("out/final", "rows.npz", "nats.npz")
        self.run(str(HERE / "litgpt_nats.py"), *places, folder=folder)
        found = np.load(folder / "nats.npz")
        bits = BitsPerByte()
        num_bytes = torch.cat([batch["num_bytes"] for batch in batches])
        bits.update(torch.from_numpy(found["nats"]), num_bytes)
        return Scored(float(bits.compute()), int(found["parameters"]), int(found["looked_up"]))
