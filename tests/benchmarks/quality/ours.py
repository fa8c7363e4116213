"""This package's ``train.py`` with a config."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pile_lightning import CausalLM, TextData
from tests.benchmarks.quality.changes import changed, find_config, read_config
from tests.benchmarks.quality.fit import fit
from tests.benchmarks.quality.scoring import score
from tests.benchmarks.quality.trained import Scored, Trained

__all__ = ["Ours", "prepare"]


def prepare(config: Mapping[str, Any]) -> TextData:
    """Prepare the text of a config, which is in nobody's clock."""
    names = ("sources", "tokenizer", "val_fraction", "cache_dir")
    given = config["data"]["init_args"]
    data = TextData(**{name: given[name] for name in names if name in given})
    data.prepare_data()
    return data


@dataclass(frozen=True, kw_only=True)
class Ours:
    """A config that trains on ``data``."""

    settings: str
    """The config's file."""
    data: TextData
    """What is scored."""
    environment: Mapping[str, str]
    """Variables of its process."""
    timeout: float
    """Seconds that a run may take."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the config that are set otherwise, by dotted name."""
    val_batches: int | None = None
    """Batches that are scored; all by default."""
    system: str = "ours"
    """What it is called, where several are compared."""

    @property
    def config(self) -> dict[str, Any]:
        """All settings."""
        return changed(read_config(find_config(self.settings)), self.changes)

    @property
    def tokens_a_step(self) -> int:
        """Positions of a batch."""
        data = self.config["data"]["init_args"]
        return int(data["batch_size"] * data["seq_len"])

    def train(self, steps: int, folder: Path) -> Trained:
        """Train for ``steps`` steps."""
        done = fit(
            self.config,
            steps=steps,
            folder=folder,
            environment={"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), **self.environment},
            timeout=self.timeout,
            changes={"trainer.limit_val_batches": 0},
        )
        return Trained(done.seconds, done.seconds_a_step, steps)

    def score(self, folder: Path) -> Scored:
        """Score the last checkpoint."""
        path = folder / "run" / "checkpoints" / "last.ckpt"
        model = CausalLM.load_from_checkpoint(path, map_location="cpu", compile=False).eval()
        return score(
            model,
            model,
            self.data,
            context=self.config["data"]["init_args"]["seq_len"],
            max_batches=self.val_batches,
        )
