"""A picture of the run: loss, held-out bits per byte, learning rate and speed."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from pile_lightning.callbacks.metrics_csv import read_metrics

__all__ = ["Curves", "draw_curves"]

PANELS = (
    ("loss (nats a token)", {"train/loss": "train", "val/loss": "held out"}),
    ("held-out bits per byte", {"val/bits_per_byte": "all domains"}),
    ("learning rate", {"train/lr": "first parameter group"}),
    ("tokens a second", {"throughput/tokens_per_second": "training"}),
)


def draw_curves(metrics: str | Path, picture: str | Path) -> None:
    """Draw a run's ``metrics.csv`` as a PNG of four panels over the optimizer step.

    Raises:
        ValueError: Where the file is missing or holds no rows.
    """
    # a backend without a screen, and an import of a second that only a picture should cost
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    if not rows:
        raise ValueError(f"{metrics} holds no metrics; is it the metrics.csv of a run?")
    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (title, columns) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for column, label in columns.items():
            points = [(row["step"], row[column]) for row in rows if column in row]
            if points:
                marker = "o" if len(points) < 40 and column.startswith("val/") else None
                axes.plot(*zip(*points, strict=True), label=label, marker=marker, markersize=3)
        axes.set(title=title, xlabel="optimizer step")
        axes.grid(alpha=0.3)
        if len(columns) > 1 and axes.lines:
            axes.legend()
    FigureCanvasAgg(figure).print_figure(picture, dpi=110)


class Curves(Callback):
    """Draw ``curves.png`` in the run's folder after each validation and at the end."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder (on all ranks: Lightning broadcasts it)."""
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what there is."""
        if trainer.state.fn == "fit":
            self._draw()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw all of it."""
        self._draw()

    @rank_zero_only
    def _draw(self) -> None:
        metrics = self.folder / "metrics.csv"
        if read_metrics(metrics):
            draw_curves(metrics, self.folder / "curves.png")
