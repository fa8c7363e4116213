"""nanoGPT's own ``train.py``, run as it is; only its settings are given."""

import contextlib
import importlib.util
import io
import pickle
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from pile_lightning import TextData
from tests.benchmarks.quality.peer import Peer
from tests.benchmarks.quality.scoring import score
from tests.benchmarks.quality.trained import Scored, Trained

__all__ = ["NANO_GPT", "NanoGpt", "find_nano_gpt", "write_tokens"]

DEFAULTS: dict[str, Any] = {
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 128,
    "block_size": 64,
    "batch_size": 12,
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
    "beta2": 0.99,
    "warmup": 0.05,
    "compile": False,
}

NANO_GPT = (
    "",  # the small recipe of its README
    "learning_rate=2e-3",
    "learning_rate=4e-3",
    "learning_rate=4e-3 compile=true",
    "learning_rate=4e-3 batch_size=24 compile=true",
    "learning_rate=3e-3 block_size=128 batch_size=8 compile=true",
    "learning_rate=3e-3 n_embd=192 block_size=128 batch_size=8 compile=true",
    "learning_rate=2e-3 n_embd=256 block_size=64 batch_size=12 compile=true",
    "learning_rate=2e-3 n_embd=256 block_size=128 batch_size=8 compile=true",
    "learning_rate=2e-3 n_embd=256 block_size=256 batch_size=8 compile=true",
)
"""What is tried: the README's recipe, and other rates, batches, rows and widths."""


def find_nano_gpt(place: str | None, scratch: Path) -> Path:
    """Return a folder with nanoGPT, cloned into ``scratch`` where ``place`` is no such folder.

    Raises:
        FileNotFoundError: Where there is none, with how to get it.
    """
    hint = "give --nanogpt its folder or git address (github.com/karpathy/nanoGPT)"
    if place is None:
        raise FileNotFoundError(hint)
    folder = Path(place).absolute()
    if not (folder / "train.py").is_file():
        folder, address = scratch / "nanoGPT", str(folder) if folder.exists() else place
        if not (folder / "train.py").is_file():
            command = ["git", "clone", "--quiet", "--depth=1", address, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise FileNotFoundError(f"{place} could not be cloned ({done.stderr}); {hint}")
    missing = [
        name
        for name in ("train.py", "model.py", "configurator.py")
        if not (folder / name).is_file()
    ]
    if missing:
        raise FileNotFoundError(f"{place} has no {', '.join(missing)}; {hint}")
    return folder


def write_tokens(data: TextData, folder: Path) -> Path:
    """Write what ``data`` has prepared as nanoGPT reads it: ``train.bin`` and ``val.bin``."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        streams = data.store.streams(split)
        tokens = np.concatenate([each.read(0, each.counts.tokens) for each in streams])
        tokens.astype(np.uint16).tofile(folder / f"{split}.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": data.vocab_size}))
    return folder


@dataclass(frozen=True, kw_only=True)
class NanoGpt(Peer):
    """One of its configs."""

    source: Path
    """Its folder."""
    defaults: ClassVar[dict[str, Any]] = DEFAULTS
    system: ClassVar[str] = "nanoGPT"

    @property
    def tokens_a_step(self) -> int:
        """Positions of a batch."""
        return int(self.options["batch_size"] * self.options["block_size"])

    def train(self, steps: int, folder: Path) -> Trained:
        """Run its ``train.py`` for ``steps`` iterations."""
        folder.mkdir(parents=True, exist_ok=True)
        # what it looks for where it is run
        (folder / "configurator.py").symlink_to(self.source / "configurator.py")
        (folder / "data").mkdir()
        (folder / "data" / "tokens").symlink_to(self.tokens.absolute())
        own = self.options
        warmup = own.pop("warmup")
        own |= {
            "dataset": "tokens",
            "device": "cpu",
            "dtype": "float32",  # on a CPU it has no other
            "dropout": 0.0,
            "gradient_accumulation_steps": 1,
            "max_iters": steps,
            "lr_decay_iters": steps,
            "min_lr": own["learning_rate"] / 10,
            "warmup_iters": max(1, round(warmup * steps)),
            # it saves where it scores: at the end, and what it scores is nothing
            "eval_interval": steps,
            "eval_iters": 0,
            "always_save_checkpoint": True,
            "log_interval": 1,
            "out_dir": "out",
        }
        flags = [f"--{name}={value}" for name, value in own.items()]
        started = self.run(str(self.source / "train.py"), *flags, folder=folder)
        log = (folder / "log.txt").read_text(errors="replace")
        times = [float(ms) / 1000 for ms in re.findall(r"^iter \d+: .*time ([\d.]+)ms", log, re.M)]
        return Trained(
            seconds=(folder / "out" / "ckpt.pt").stat().st_mtime - started,
            seconds_a_step=statistics.fmean(times[len(times) // 2 : -1]),
            steps=steps,
        )

    def score(self, folder: Path) -> Scored:
        """Score its checkpoint by its own network."""
        model = _import_from(self.source / "model.py")
        saved = torch.load(folder / "out" / "ckpt.pt", weights_only=True, map_location="cpu")
        with contextlib.redirect_stdout(io.StringIO()):
            network = model.GPT(model.GPTConfig(**saved["model_args"]))
        weights = {k.removeprefix("_orig_mod."): v for k, v in saved["model"].items()}
        network.load_state_dict(weights)
        network.eval()
        return score(
            network,
            # without targets it gives the logits of the last position alone
            lambda batch: network(batch["input_ids"], batch["input_ids"])[0],
            self.data,
            context=self.options["block_size"],
            max_batches=self.val_batches,
        )


def _import_from(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("nano_gpt_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module
