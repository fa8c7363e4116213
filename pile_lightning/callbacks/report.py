"""The closing table: what the run reached, beside what compressors reach, and where things lie."""

import gzip
import lzma
import time
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from pile_lightning.callbacks.checkpoints import BestCheckpoint
from pile_lightning.callbacks.domains import Delivers, WeighsDomains, domain_table
from pile_lightning.callbacks.members import Ranks, ranking_table
from pile_lightning.callbacks.samples import Samples
from pile_lightning.callbacks.sweep import sweep_curves, sweep_table
from pile_lightning.callbacks.throughput import Throughput

__all__ = ["Report", "compressed_bits_per_byte"]

MAX_BYTES = 64 * 2**20
"""Held-out text past this size is not compressed: xz -9e takes half a second a megabyte."""


@runtime_checkable
class HoldsOutText(Protocol):
    """A data module that can say what its held-out text was."""

    def held_out_texts(self) -> Iterator[str]:
        """Yield the held-out documents."""


def compressed_bits_per_byte(text: bytes) -> dict[str, float]:
    """Return the bits a byte of ``gzip -9`` and ``xz -9e``.

    Example:
        >>> {name: round(bits, 2) for name, bits in compressed_bits_per_byte(b"ab" * 5000).items()}
        {'xz -9e': 0.09, 'gzip -9': 0.04}
    """
    xz = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
    return {
        "xz -9e": 8 * len(xz) / len(text),
        "gzip -9": 8 * len(gzip.compress(text, 9)) / len(text),
    }


class Report(Callback):
    """Print a short table when training ends."""

    def __init__(self) -> None:
        self._scores: dict[str, float] = {}
        self._scored_step: int | None = None
        self._loss: float | None = None
        self._together: float | None = None
        self._first_step: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the latest scores."""
        return {
            "scores": self._scores,
            "step": self._scored_step,
            "together": self._together,
            "loss": self._loss,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there: what is left of a run may be its end."""
        self._scores, self._scored_step = dict(state_dict["scores"]), state_dict["step"]
        self._together, self._loss = state_dict["together"], state_dict["loss"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._first_step = trainer.global_step
        self._began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the latest scores."""
        if trainer.sanity_checking:
            return
        together = trainer.callback_metrics.get("val/ensemble/bits_per_byte")
        self._together = None if together is None else float(together)
        loss = trainer.callback_metrics.get("val/loss")
        self._loss = None if loss is None else float(loss)
        self._scored_step = trainer.global_step
        prefix, scores = "val/", dict(trainer.callback_metrics)
        if isinstance(pl_module, Ranks):
            prefix = f"val/{_best(pl_module)['name']}/"
        self._scores = {
            name.removeprefix(prefix).removesuffix("/bits_per_byte"): float(value)
            for name, value in scores.items()
            if name.startswith(prefix) and name.endswith("bits_per_byte")
        }

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table."""
        folder = trainer.log_dir or trainer.default_root_dir  # a collective: on every rank
        if self._first_step is not None and not trainer.fast_dev_run:
            steps = trainer.global_step - self._first_step
            self._print(trainer, pl_module, folder, steps)

    @rank_zero_only
    def _print(self, trainer: Trainer, pl_module: LightningModule, folder: str, steps: int) -> None:
        lines = ["", *self._training(trainer, pl_module, steps)]
        if "bits_per_byte" in self._scores:
            lines += ["", *self._table(trainer, self._scored(trainer, pl_module))]
            if self._scored_step != trainer.global_step:
                batches = trainer.global_step * trainer.accumulate_grad_batches
                lines += [
                    f"  Step {trainer.global_step} is not scored: for that choose a "
                    f"trainer.val_check_interval that divides {batches}."
                ]
        elif self._loss is not None:
            lines += ["", f"Held-out loss: {self._loss:.4f} nats a token."]
        if isinstance(pl_module, Ranks):
            ranked = pl_module.ranking()
            lines += ["", "The members.", *ranking_table(ranked)]
            optima = sweep_table(sweep_curves(ranked))
            lines += ["", "Where the loss is lowest.", *optima] if optima else []
        lines += self._domains(trainer)
        sample = next((c.latest for c in trainer.callbacks if isinstance(c, Samples)), None)
        if sample:
            lines += ["", "A sample:", *(f"  | {line}" for line in sample.splitlines()[:14])]
        lines += ["", *self._places(pl_module, Path(folder))]
        print("\n".join(lines), flush=True)

    def _training(self, trainer: Trainer, pl_module: LightningModule, steps: int) -> list[str]:
        if steps == 0:
            return [
                f"The run has taken its {trainer.global_step} steps; a larger trainer.max_steps "
                f"goes on."
            ]
        seconds = time.perf_counter() - self._began
        millions = sum(p.numel() for p in pl_module.parameters() if p.requires_grad) / 1e6
        minutes = f"{int(seconds // 60)} min {seconds % 60:.0f} s"
        counted = next((c.tokens for c in trainer.callbacks if isinstance(c, Throughput)), None)
        ranked = pl_module.ranking() if isinstance(pl_module, Ranks) else []
        of_members = f" of {len(ranked)} members" if ranked else ""
        tokens = "" if counted is None else f" ({counted / 1e6:.2f} M tokens in all)"
        return [
            f"Trained {millions:.1f} M parameters{of_members} for {steps} steps{tokens} in "
            f"{minutes}, validation included."
        ]

    def _scored(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Return bits per byte of the model now and at its best, or of the best of several."""
        score = self._scores["bits_per_byte"]
        if isinstance(pl_module, Ranks):
            first = _best(pl_module)
            rows = {f"the best member, step {first['scored_step']}": score}
            if self._together is not None:
                rows[f"the ensemble, step {self._scored_step}"] = self._together
            return rows
        rows = {f"this model, step {self._scored_step}": score}
        best = next((c for c in trainer.callbacks if isinstance(c, BestCheckpoint)), None)
        if best is not None and best.best_score is not None and best.best_step != self._scored_step:
            rows[f"this model, best step {best.best_step}"] = best.best_score
        return rows

    @staticmethod
    def _table(trainer: Trainer, rows: dict[str, float]) -> list[str]:
        title = f"Held-out text, {_share_scored(trainer)}"
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, HoldsOutText):
            text, documents, whole = _collect(data.held_out_texts())
            if whole and text:
                rows |= compressed_bits_per_byte(text)
                title += f": {documents} documents, {len(text):,} bytes"
        width = max(map(len, rows))
        listed = [f"  {name:<{width}}  {value:7.4f}" for name, value in rows.items()]
        return [f"{title}.", f"  {'':<{width}}  bits per byte", *listed]

    def _domains(self, trainer: Trainer) -> list[str]:
        data = getattr(trainer, "datamodule", None)
        delivered = data.delivered() if isinstance(data, Delivers) else {}
        scores = {name: value for name, value in self._scores.items() if name != "bits_per_byte"}
        if max(len(delivered), len(scores)) < 2:
            return []
        lines = domain_table(
            delivered,
            scores,
            total=self._scores.get("bits_per_byte"),
            weights=data.mixture_weights() if isinstance(data, WeighsDomains) else None,
        )
        return ["", "By domain, since the first step.", *lines]

    @staticmethod
    def _places(pl_module: LightningModule, folder: Path) -> list[str]:
        found = {
            "config.yaml": "the run, to repeat it",
            "tokenizer.json": "",
            "checkpoints": "last.ckpt, best.ckpt",
            "metrics.csv": "",
            "curves.png": "the same as a picture",
            "sweep.png": "loss over what was swept",
            "samples": "text by step",
            "data.png": "what there was to train on",
            "members": "a folder of a run for each of them",
        }
        use = folder
        if isinstance(pl_module, Ranks) and (folder / "members").is_dir():
            use = folder / "members" / _best(pl_module)["name"]
        listed = [
            f"  {name:<15} {note}".rstrip()
            for name, note in found.items()
            if (folder / name).exists()
        ]
        after = []
        if (folder / "tokenizer.json").exists():
            after = ["", "Next:", f'  pile generate {use} --prompt "def "']
        return [f"{folder}/", *listed, *after]


def _share_scored(trainer: Trainer) -> str:
    """Say how much of the held-out text the scores are of: ``limit_val_batches`` may cut it."""
    loaders = trainer.val_dataloaders
    loader = loaders[0] if isinstance(loaders, list | tuple) and loaders else loaders
    batches = trainer.num_val_batches
    if isinstance(loader, Sized) and batches and batches[0] < len(loader):
        return f"of which the first {batches[0]} of {len(loader)} batches are scored"
    return "every document from its first token"


def _best(module: Ranks) -> dict[str, Any]:
    """Return the row of the best member that is not frozen."""
    return next(row for row in module.ranking() if not row["frozen"])


def _collect(texts: Iterator[str]) -> tuple[bytes, int, bool]:
    """Join documents; say how many there are, and whether they fit into ``MAX_BYTES``."""
    parts: list[bytes] = []
    size = 0
    for text in texts:
        parts.append(text.encode("utf-8", "surrogatepass"))
        size += len(parts[-1])
        if size > MAX_BYTES:
            return b"", len(parts), False
    return b"".join(parts), len(parts), True
