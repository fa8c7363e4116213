"""A picture of what there is to train on: document lengths and shares, by domain."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pile_lightning.callbacks.pictures import write_png
from pile_lightning.data.survey import Survey

__all__ = ["draw_survey"]

_HISTOGRAMS, _BARS = 10, 30


def draw_survey(
    survey: Survey, picture: Path, *, seq_len: int, shares: Mapping[str, float] | None
) -> None:
    """Draw a PNG of two panels: how long documents are, and which share each domain has.

    Args:
        survey: What there is.
        picture: The file to write.
        seq_len: Positions of a row, a line in the first panel.
        shares: Of the domains in the mixture, if there is one.
    """
    # an import of a second that only a picture should cost
    from matplotlib.figure import Figure

    bars = min(_BARS, len(survey.domains))
    figure = Figure(figsize=(12, max(5, 0.3 * bars + 1.5)), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_lengths(left, survey, seq_len)
    _draw_shares(right, survey, shares)
    write_png(figure, picture)


def _draw_lengths(axes: Any, survey: Survey, seq_len: int) -> None:
    by_size = sorted(survey.domains.items(), key=lambda item: -item[1].train.tokens)
    read = [(name, domain.lengths) for name, domain in by_size if len(domain.lengths)]
    every = np.concatenate([lengths for _, lengths in read] or [np.ones(1, np.int64)])
    bins = np.geomspace(every.min(), every.max() + 1, 30)
    for name, lengths in read[:_HISTOGRAMS]:
        weights = np.full(len(lengths), 100 / len(lengths))
        axes.hist(lengths, bins, weights=weights, histtype="step", label=_label(name))
    if len(read) > _HISTOGRAMS:
        axes.plot([], [], " ", label=f"and {len(read) - _HISTOGRAMS} smaller domains")
    axes.axvline(seq_len, color="black", linestyle=":", label=f"seq_len {seq_len}")
    axes.set(title="length of documents", xlabel="tokens", ylabel="% of documents", xscale="log")
    axes.legend(fontsize="small")


def _draw_shares(axes: Any, survey: Survey, shares: Mapping[str, float] | None) -> None:
    natural = {name: domain.natural for name, domain in survey.domains.items()}
    known = [name for name in natural if natural[name] is not None or name in (shares or {})]
    order = sorted(known, key=lambda name: -(natural[name] or (shares or {}).get(name, 0)))[:_BARS]
    series = {"by nature": {name: share for name, share in natural.items() if share is not None}}
    if shares is not None:
        series["in the mixture"] = dict(shares)
    series = {label: values for label, values in series.items() if values}
    places = np.arange(len(order))
    height = 0.8 / max(1, len(series))
    for number, (label, values) in enumerate(series.items()):
        widths = [100 * values.get(name, 0) for name in order]
        axes.barh(places + number * height, widths, height, label=label)
    axes.set(title="shares of tokens" if survey.read is None else "shares", xlabel="%")
    axes.set_yticks(places + height * (len(series) - 1) / 2, [_label(name) for name in order])
    axes.invert_yaxis()
    if series:
        axes.legend(fontsize="small")


def _label(name: str) -> str:
    # matplotlib leaves out labels that open with an underscore, and reads $ as formulas
    return (f" {name}" if name[:1] == "_" else name).replace("$", r"\$")
