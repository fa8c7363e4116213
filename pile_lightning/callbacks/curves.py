"""A picture of the run: loss, held-out bits per byte, learning rate and speed."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from pile_lightning.callbacks.metrics_csv import MetricsReader, read_metrics
from pile_lightning.callbacks.pictures import write_png
from pile_lightning.callbacks.side_files import SideFiles

__all__ = ["Curves", "draw_curves"]

HELD_OUT = "held-out bits per byte"
PANELS = {
    "loss (nats a token)": {"train/loss": "train", "val/loss": "held out"},
    HELD_OUT: {"val/bits_per_byte": "all domains"},
    "learning rate": {"train/lr": "first parameter group"},
    "tokens a second": {"throughput/tokens_per_second": "training"},
}
MAX_DOMAINS = 10
"""Lines of domains that a panel takes; as many colours tell apart."""


def draw_curves(metrics: str | Path, picture: str | Path) -> None:
    """Draw a run's ``metrics.csv`` as a PNG of four panels over the optimizer step.

    Raises:
        ValueError: Where the file is missing or holds no rows.
    """
    rows = read_metrics(metrics)
    if not rows:
        raise ValueError(f"{metrics} holds no metrics; is it the metrics.csv of a run?")
    _draw(rows, picture)


def _draw(rows: Sequence[Mapping[str, float]], picture: str | Path) -> None:
    # an import of a second that only a picture should cost
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    members = member_names(rows)
    panels = member_panels(members) if members else PANELS
    for axes, (title, columns) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        domains = domain_columns(rows) if title == HELD_OUT and not members else {}
        for column, label in (columns | domains).items():
            points = [(row["step"], row[column]) for row in rows if column in row]
            if points:
                few = 40 if column.startswith("val/") else 2
                marker = "o" if len(points) < few else None
                # black: the colours are those of the domains
                look = {"color": "black"} if domains and column not in domains else {}
                if members and len(columns) > 1:
                    look = member_look(list(columns).index(column), label)
                axes.plot(
                    *zip(*points, strict=True), label=label, marker=marker, markersize=3, **look
                )
            elif column in domains:
                axes.plot([], [], " ", label=label)
        axes.set(title=title, xlabel="optimizer step")
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1 and (not members or title == HELD_OUT):
            aside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
            axes.legend(fontsize="small", **(aside if domains or members else {}))
    write_png(figure, picture)


def member_names(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Return the names of the models that were trained side by side, none where it was one.

    Example:
        >>> member_names([{"step": 1, "train/a/loss": 2.0, "train/loss": 2.0}])
        ['a']
    """
    columns = dict.fromkeys(column for row in rows for column in row)
    found = (re.fullmatch(r"train/(.+)/loss", column) for column in columns)
    return [match[1] for match in found if match is not None]


def member_panels(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the panels of models that were trained side by side: a line for each of them."""
    named = {name: (f" {name}" if name[0] == "_" else name).replace("$", r"\$") for name in names}
    together = {"val/ensemble/bits_per_byte": "ensemble"}
    return {
        "training loss (nats a token)": {f"train/{n}/loss": label for n, label in named.items()},
        HELD_OUT: {f"val/{n}/bits_per_byte": label for n, label in named.items()} | together,
        "learning rate": {f"train/{n}/lr": label for n, label in named.items()},
        "tokens a second": PANELS["tokens a second"],
    }


def member_look(place: int, label: str) -> dict[str, str]:
    """Return a look that tells a line from all others: ten colours, then other strokes."""
    if label == "ensemble":
        return {"color": "black", "linestyle": "--"}
    return {"color": f"C{place % 10}", "linestyle": ("-", "--", ":", "-.")[place // 10 % 4]}


def domain_columns(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Return the columns of domains' held-out scores with their labels.

    Past ``MAX_DOMAINS`` comes one label without a column, which says how many are left out.

    Example:
        >>> domain_columns([{"step": 1, "val/code/bits_per_byte": 2.0, "val/bits_per_byte": 2.0}])
        {'val/code/bits_per_byte': 'code'}
    """
    names: dict[str, str] = {}
    for row in rows:
        for column, value in row.items():
            name = column.removeprefix("val/").removesuffix("/bits_per_byte")
            # nan: nothing of the domain is held out
            if column == f"val/{name}/bits_per_byte" and math.isfinite(value):
                # matplotlib leaves out labels that open with an underscore, and reads $ as formulas
                names[column] = (f" {name}" if name[0] == "_" else name).replace("$", r"\$")
    if len(names) <= MAX_DOMAINS:
        return names
    left_out = len(names) - MAX_DOMAINS
    return dict([*names.items()][:MAX_DOMAINS]) | {"": f"and {left_out} more in metrics.csv"}


class Curves(Callback):
    """Draw ``curves.png`` in the run's folder after each validation and at the end."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder (on all ranks: Lightning broadcasts it)."""
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)
        self._files = SideFiles()
        self._metrics = MetricsReader(self.folder / "metrics.csv")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what there is."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._draw()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw all of it."""
        self._draw()

    @rank_zero_only
    def _draw(self) -> None:
        rows, picture = self._metrics.read(), self.folder / "curves.png"
        if rows:
            self._files.write(picture, lambda: _draw(rows, picture))
