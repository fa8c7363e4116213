"""``metrics.csv`` loses no row and invents none, wherever a run stops."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import Callback
from lightning.pytorch.utilities import rank_zero_only

from pile_lightning.callbacks import LastCheckpoint, MetricsCsv, read_metrics


def log(folder, *rows):
    """Log rows, given by their finished step, as one process does."""
    logger = MetricsCsv(folder)
    for step, metrics in rows:
        logger.log_metrics(metrics, step=step - 1)


def test_a_resumed_run_keeps_rows_before_its_first_and_replaces_the_others(tmp_path):
    log(tmp_path, *((step, {"a": step}) for step in (1, 2, 3, 4, 5)))
    log(tmp_path, (4, {"a": 40.0}), (6, {"a": 60.0}))
    assert [(row["step"], row["a"]) for row in read_metrics(tmp_path / "metrics.csv")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 40.0),
        (6, 60.0),
    ]


def test_new_columns_lose_no_row(tmp_path):
    rows = [(1, {"a": 1.0}), (2, {"b": 2.0}), (2, {"a": 3.0, "c,d": 4.0})]
    log(tmp_path, *rows)
    log(tmp_path, (3, {"e": 5.0}))
    expected = [{"step": step, **metrics} for step, metrics in [*rows, (3, {"e": 5.0})]]
    assert read_metrics(tmp_path / "metrics.csv") == expected


def test_a_line_cut_anywhere_is_no_row(tmp_path):
    path = tmp_path / "metrics.csv"
    log(tmp_path, (9, {"a": 1.5, "b": 2.0}), (10, {"a": 123.25, "b": 17.5}))
    whole = path.read_text()
    last_line = whole.splitlines(keepends=True)[-1]
    for missing in range(1, len(last_line) + 1):
        path.write_text(whole[:-missing])
        assert read_metrics(path) == [{"step": 9, "a": 1.5, "b": 2.0}]
        log(tmp_path, (11, {"a": 1.0, "b": 3.0}))
        assert [row["step"] for row in read_metrics(path)] == [9, 11]


def test_a_line_of_rubbish_is_no_row(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,a\n1,2.0\n\x00\x00\x00\n2,rubbish\n,5.0\n3,4.0\n")
    assert read_metrics(path) == [{"step": 1, "a": 2.0}, {"step": 3, "a": 4.0}]


@pytest.mark.parametrize(
    "line",
    [b"2,2\xb45", b"\xff\xfe,1", b'2,"5', b"nan,1.0", b"inf,1.0", b"2,1.0,7", b"2", b"2,1\x005"],
)
def test_a_damaged_line_is_passed_over_and_the_run_goes_on(tmp_path, line):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,a\n1,2.5\n" + line + b"\n3,2.25\n")
    assert read_metrics(path) == [{"step": 1, "a": 2.5}, {"step": 3, "a": 2.25}]
    log(tmp_path, (4, {"a": 4.0}))
    assert [row["step"] for row in read_metrics(path)] == [1, 3, 4]


@pytest.mark.parametrize("method", ["csv.DictWriter.writerows", "pathlib.Path.replace"])
def test_a_kill_while_columns_are_added_leaves_the_old_rows(tmp_path, monkeypatch, method):
    log(tmp_path, (1, {"a": 1.0}))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(method, killed)
        with pytest.raises(KeyboardInterrupt):
            log(tmp_path, (2, {"b": 1.0}))
    assert read_metrics(tmp_path / "metrics.csv") == [{"step": 1, "a": 1.0}]
    log(tmp_path, (2, {"b": 2.0}))
    assert read_metrics(tmp_path / "metrics.csv") == [{"step": 1, "a": 1.0}, {"step": 2, "b": 2.0}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


names = st.text(alphabet="ab/,\"' ;", min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.dictionaries(names, st.floats(allow_nan=False)), min_size=1, max_size=5))
def test_values_come_back_as_they_were_logged(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    log(folder, *enumerate(rows, start=1))
    expected = [{"step": step, **row} for step, row in enumerate(rows, start=1)]
    assert read_metrics(folder / "metrics.csv") == expected


def test_what_is_no_number_is_kept_and_the_epoch_is_not(tmp_path):
    log(tmp_path, (1, {"loss": math.nan, "epoch": 0}))
    (row,) = read_metrics(tmp_path / "metrics.csv")
    assert math.isnan(row.pop("loss"))
    assert row == {"step": 1}


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    log(tmp_path, (1, {"a": 1.0}))
    assert not list(tmp_path.iterdir())
    assert read_metrics(tmp_path / "metrics.csv") == []


class StopAt(Callback):
    """Stops the run before its sixth step."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 5:
            raise RuntimeError("stopped")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_file_of_a_resumed_run_is_that_of_an_uninterrupted_one(
    make_trainer, make_model, make_data, tmp_path, accumulate
):
    def fit(name, *callbacks, ckpt_path=None):
        trainer = make_trainer(
            *callbacks,
            logger=MetricsCsv(tmp_path / name),
            default_root_dir=tmp_path / name,
            max_steps=8,
            limit_val_batches=1,
            val_check_interval=2 * accumulate,
            accumulate_grad_batches=accumulate,
        )
        trainer.fit(make_model(), make_data(), ckpt_path=ckpt_path, weights_only=True)

    fit("whole")
    with pytest.raises(RuntimeError, match="stopped"):
        fit("resumed", LastCheckpoint(3), StopAt())
    fit("resumed", ckpt_path=tmp_path / "resumed/checkpoints/last.ckpt")
    whole, resumed = (
        (tmp_path / name / "metrics.csv").read_text() for name in ("whole", "resumed")
    )
    assert resumed == whole
    assert [row["step"] for row in read_metrics(tmp_path / "whole/metrics.csv")] == [
        *(1, 2, 2, 3, 4, 4),
        *(5, 6, 6, 7, 8, 8),
    ]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_ended_and_is_gone_on_with_numbers_its_steps_on(
    make_trainer, make_model, make_data, tmp_path, accumulate
):
    checkpoint = None
    for steps in (4, 8):
        trainer = make_trainer(
            LastCheckpoint(100),
            logger=MetricsCsv(tmp_path / "run"),
            default_root_dir=tmp_path / "run",
            max_steps=steps,
            limit_val_batches=1,
            val_check_interval=4 * accumulate,
            accumulate_grad_batches=accumulate,
            log_every_n_steps=2,
        )
        trainer.fit(make_model(), make_data(), ckpt_path=checkpoint, weights_only=True)
        checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    steps = [row["step"] for row in read_metrics(tmp_path / "run/metrics.csv")]
    assert steps == [2, 4, 4, 6, 8, 8]


def test_rows_that_a_full_disk_refuses_are_written_when_there_is_room(tmp_path, monkeypatch):
    logger = MetricsCsv(tmp_path)
    logger.log_metrics({"train/loss": 3.0}, step=0)
    plain = logger._writer

    def full(file, columns):
        file.write("2,")  # as far as it goes
        file.flush()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logger, "_writer", full)
    with pytest.warns(UserWarning, match=r"metrics.csv was not written: No space.*tries again"):
        logger.log_metrics({"train/loss": 2.0}, step=1)
    logger.log_metrics({"train/loss": 1.5, "val/loss": 1.0}, step=2)  # no second warning
    assert (tmp_path / "metrics.csv").read_text() == "step,train/loss\n1,3.0\n"
    monkeypatch.setattr(logger, "_writer", plain)
    logger.finalize("success")
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [1, 2, 3]
    logger.log_metrics({"train/loss": 1.0}, step=3)
    assert read_metrics(tmp_path / "metrics.csv")[-1] == {"step": 4, "train/loss": 1.0}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
