"""``predictions.jsonl``: a line a row, as the model said it."""

import errno
import json
from types import SimpleNamespace

import pytest
import torch

from pile_lightning.callbacks import WritePredictions
from pile_lightning.whole_file import partial


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("top", [1, 5, 1000])
def test_a_line_a_row_with_the_likeliest_tokens_first(
    make_trainer, make_model, make_data, corpus, tmp_path, top
):
    # the last batch of seven rows is filled up with rows that say nothing
    data = make_data(sources=str(corpus / "json_*.py"), val_batch_size=7, val_fraction=0.4)
    predicted = torch.cat(make_trainer(WritePredictions(top)).predict(make_model(), data))
    lines = lines_of(tmp_path / "run/predictions.jsonl")
    assert data.scoring_rows.num_rows % 7
    assert len(lines) == data.scoring_rows.num_rows
    for line, row in zip(lines, predicted, strict=False):
        ids, probabilities = line["ids"], line["probabilities"]
        assert len(set(ids)) == len(line["tokens"]) == min(top, 257)
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1 + 1e-5
        assert probabilities == row[ids].tolist()
        assert probabilities[0] == row.max()
        assert line["tokens"] == [data.tokenizer.decode([i]) for i in ids]


def test_a_second_time_replaces_the_first(make_trainer, make_model, make_data, tmp_path):
    for batches in (3, 2):
        trainer = make_trainer(WritePredictions(), limit_predict_batches=batches)
        trainer.predict(make_model(), make_data())
    assert len(lines_of(tmp_path / "run/predictions.jsonl")) == 2 * 4


def rank_of(rank, folder, *, num_replicas):
    peers = 2 // num_replicas
    return SimpleNamespace(
        global_rank=rank,
        world_size=2,
        default_root_dir=folder,
        distributed_sampler_kwargs={"num_replicas": num_replicas, "rank": rank // peers},
    )


def test_of_tensor_parallel_peers_the_first_writes(tmp_path):
    for rank in (0, 1):
        writer = WritePredictions(top=1)
        trainer = rank_of(rank, tmp_path, num_replicas=1)
        writer.on_predict_start(trainer, None)
        writer.write_on_batch_end(trainer, None, torch.ones(3, 2) / 2, None, None, 0, 0)
        writer.on_predict_end(trainer, None)
    assert len(lines_of(tmp_path / "predictions.jsonl")) == 3


def test_ranks_write_a_file_each_and_tokens_need_a_tokenizer(tmp_path):
    for rank in (0, 1):
        writer = WritePredictions(top=1)
        trainer = rank_of(rank, tmp_path, num_replicas=2)
        writer.on_predict_start(trainer, None)
        row = torch.tensor([[0.25, 0.75]])
        writer.write_on_batch_end(trainer, None, row, None, None, 0, 0)
        writer.on_predict_end(trainer, None)
        assert lines_of(tmp_path / f"predictions-{rank}.jsonl") == [
            {"ids": [1], "probabilities": [0.75]}
        ]


def test_no_token_at_all_is_refused():
    with pytest.raises(ValueError, match=r"top=0: write at least"):
        WritePredictions(top=0)


def predicting(folder):
    """Return a trainer of one rank and a writer that has begun."""
    trainer = rank_of(0, folder, num_replicas=1)
    writer = WritePredictions(top=1)
    writer.on_predict_start(trainer, None)
    return trainer, writer


def write(trainer, writer, value):
    row = torch.tensor([[1 - value, value]])
    writer.write_on_batch_end(trainer, None, row, None, None, 0, 0)


def test_predictions_that_end_early_leave_those_before(tmp_path):
    trainer, writer = predicting(tmp_path)
    write(trainer, writer, 0.75)
    writer.on_predict_end(trainer, None)
    trainer, writer = predicting(tmp_path)
    write(trainer, writer, 1.0)
    writer.on_exception(trainer, None, KeyboardInterrupt())
    assert lines_of(tmp_path / "predictions.jsonl") == [{"ids": [1], "probabilities": [0.75]}]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_lines_that_find_the_disk_full_are_written_later(tmp_path, monkeypatch):
    trainer, writer = predicting(tmp_path)
    write(trainer, writer, 0.75)
    with monkeypatch.context() as patch:
        patch.setattr(writer._file, "_write", half_a_line(writer._file))
        with pytest.warns(UserWarning, match=r"jsonl were not written"):
            write(trainer, writer, 1.0)
    writer.on_predict_end(trainer, None)
    values = [line["probabilities"] for line in lines_of(tmp_path / "predictions.jsonl")]
    assert values == [[0.75], [1.0]]


def test_predictions_that_cannot_be_written_are_an_error(tmp_path, monkeypatch):
    trainer, writer = predicting(tmp_path)
    monkeypatch.setattr(writer._file, "_write", full)
    with pytest.warns(UserWarning, match="No space"):
        write(trainer, writer, 0.75)
    with pytest.raises(OSError, match=r"jsonl could not be written: No space .*; make room"):
        writer.on_predict_end(trainer, None)
    assert not list(tmp_path.iterdir())


def half_a_line(file):
    def write_half():
        with partial(file.path).open("ab") as half:
            half.write(b'{"ids"')
        full()

    return write_half


def full():
    raise OSError(errno.ENOSPC, "No space left on device")


def test_two_processes_do_not_write_the_same_predictions(tmp_path):
    predicting(tmp_path)
    with pytest.raises(ValueError, match=r"predictions.jsonl is being written by another process"):
        predicting(tmp_path)
