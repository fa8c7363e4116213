"""One progress bar that counts what training counts: optimizer steps."""

import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

__all__ = ["StepProgressBar"]


class StepProgressBar(ProgressBar):
    """Show steps, time left, loss and tokens a second; print a line at each validation.

    Lightning's bars count batches and know no end on an endless stream, so they show no time left.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: tqdm[Any] | None = None
        self._train_bar: tqdm[Any] | None = None

    def disable(self) -> None:
        """Show nothing (Lightning asks this of every rank but the first)."""
        self._enabled = False

    def enable(self) -> None:
        """Show it again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        if self._enabled:
            tqdm.write(" ".join(map(str, args)), file=sys.stderr)

    def _open(self, label: str, total: float | None, *, initial: int = 0, unit: str) -> None:
        if not self._enabled:
            return
        self._bar = tqdm(
            desc=label,
            total=int(total) if total and total != float("inf") else None,
            initial=initial,
            unit=unit,
            dynamic_ncols=True,
            leave=unit == "step",
            # a log file gets a line now and then, a terminal a moving bar
            mininterval=0.2 if sys.stderr.isatty() else 20,
            smoothing=0.1,
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar at the step that training starts from."""
        total = trainer.max_steps if trainer.max_steps > 0 else None
        self._open("training", total, initial=trainer.global_step, unit="step")
        self._train_bar = self._bar

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar on by one finished step."""
        if self._bar is None or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step % trainer.log_every_n_steps == 0:
            metrics = trainer.callback_metrics
            shown = {}
            if "train/loss" in metrics:
                shown["loss"] = f"{float(metrics['train/loss']):.3f}"
            if "throughput/tokens_per_second" in metrics:
                shown["tokens/s"] = f"{float(metrics['throughput/tokens_per_second']):,.0f}"
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a second bar below the first."""
        label = "scoring held-out text"
        self._open(label, sum(map(float, trainer.num_val_batches)), unit="batch")

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move on."""
        if self._bar is not None:
            self._bar.update()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the second bar and leave a line of scores."""
        self._close()
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._bar = self._train_bar
            scores = {
                name.removeprefix("val/"): float(value)
                for name, value in trainer.callback_metrics.items()
                if name in ("val/loss", "val/bits_per_byte")
            }
            listed = ", ".join(f"{name} {value:.4f}" for name, value in sorted(scores.items()))
            self.print(f"step {trainer.global_step}: held-out {listed}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar."""
        self._open("testing", sum(map(float, trainer.num_test_batches)), unit="batch")

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move on."""
        if self._bar is not None:
            self._bar.update()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar."""
        self._open("predicting", sum(map(float, trainer.num_predict_batches)), unit="batch")

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move on."""
        if self._bar is not None:
            self._bar.update()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()
        self._train_bar = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: Any) -> None:
        """Close the bars, so that what is printed next starts on a line of its own."""
        if self._bar is not self._train_bar:
            self._close()
            self._bar = self._train_bar
        self._close()
