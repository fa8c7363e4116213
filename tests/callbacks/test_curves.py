"""The picture is drawn from whatever a run has logged so far."""

import math

import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread

from pile_lightning.callbacks import Curves, MetricsCsv, draw_curves
from pile_lightning.callbacks.curves import domain_columns

HEADER = ["step", "train/loss", "val/loss", "val/bits_per_byte", "train/lr"]
COLUMNS = [*HEADER, "throughput/tokens_per_second"]


def draw(folder, columns, rows=3):
    """Draw a file that has these columns, and return the picture's pixels."""
    lines = [",".join(columns), *(",".join([str(i + 1)] * len(columns)) for i in range(rows))]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    draw_curves(folder / "metrics.csv", folder / "curves.png")
    return imread(folder / "curves.png")


def test_each_column_shows_and_none_is_needed(tmp_path):
    empty = draw(tmp_path, ["step"])
    assert empty.ndim == 3
    pictures = {column: draw(tmp_path, ["step", column]) for column in COLUMNS[1:]}
    for column, picture in pictures.items():
        assert (picture != empty).any(), column


def labels_of_held_out(folder, names, monkeypatch):
    """Draw a run of these domains, and return what the held-out panel's legend says."""
    said = []
    plain = Axes.legend

    def legend(axes, **settings):
        if axes.get_title() == "held-out bits per byte":
            said.extend(axes.get_legend_handles_labels()[1])
        return plain(axes, **settings)

    monkeypatch.setattr(Axes, "legend", legend)
    columns = [f"val/{name}/bits_per_byte" for name in names]
    draw(folder, ["step", "val/bits_per_byte", *columns, "val/x/perplexity"])
    return said


def test_each_domain_has_a_line(tmp_path, monkeypatch):
    names = ["code", "a/b", "_c", "$d$"]
    said = labels_of_held_out(tmp_path, names, monkeypatch)
    assert said == ["all domains", "code", "a/b", " _c", r"\$d\$"]


def test_past_ten_domains_the_rest_is_a_note(tmp_path, monkeypatch):
    names = [f"domain {i}" for i in range(22)]
    said = labels_of_held_out(tmp_path, names, monkeypatch)
    assert said == ["all domains", *names[:10], "and 12 more in metrics.csv"]


@pytest.mark.parametrize("rows", [1, 100])
def test_few_rows_and_many(tmp_path, rows):
    assert draw(tmp_path, COLUMNS, rows).std() > 0


def test_a_domain_that_is_not_held_out_has_no_label():
    rows = [{"step": 1, "val/a/bits_per_byte": math.nan, "val/b/bits_per_byte": 2.0}]
    assert domain_columns(rows) == {"val/b/bits_per_byte": "b"}


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,nan\n2,inf\n3,1.0\n4,nan\n")
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").std() > 0


@pytest.mark.parametrize("content", [None, "", "step,train/loss\n"])
def test_a_file_without_metrics_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content)
    with pytest.raises(ValueError, match=r"metrics.csv holds no metrics; is it"):
        draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_a_run_is_drawn_after_validation_and_at_its_end(
    make_trainer, make_model, make_data, tmp_path, monkeypatch
):
    drawn = []
    trainer = make_trainer(
        Curves(),
        logger=MetricsCsv(tmp_path / "run"),
        limit_val_batches=1,
        val_check_interval=3,
    )

    def note(rows, picture):
        drawn.append((trainer.global_step, picture))

    monkeypatch.setattr("pile_lightning.callbacks.curves._draw", note)
    trainer.fit(make_model(), make_data())
    run = tmp_path / "run"
    assert drawn == [(3, run / "curves.png"), (4, run / "curves.png")]
    trainer.validate(make_model(), make_data(), verbose=False)
    assert len(drawn) == 2


def test_a_run_without_a_file_of_metrics_has_no_picture(
    make_trainer, make_model, make_data, validating, tmp_path
):
    make_trainer(Curves(), **validating).fit(make_model(), make_data())
    assert not (tmp_path / "run" / "curves.png").exists()
