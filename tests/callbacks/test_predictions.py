"""``predictions.jsonl``: a line a row, as the model said it."""

import json
from types import SimpleNamespace

import pytest
import torch

from pile_lightning.callbacks import WritePredictions


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
    assert len(lines_of(tmp_path / "predictions.jsonl")) == 3


def test_ranks_write_a_file_each_and_tokens_need_a_tokenizer(tmp_path):
    for rank in (0, 1):
        writer = WritePredictions(top=1)
        trainer = rank_of(rank, tmp_path, num_replicas=2)
        writer.on_predict_start(trainer, None)
        row = torch.tensor([[0.25, 0.75]])
        writer.write_on_batch_end(trainer, None, row, None, None, 0, 0)
        assert lines_of(tmp_path / f"predictions-{rank}.jsonl") == [
            {"ids": [1], "probabilities": [0.75]}
        ]


def test_no_token_at_all_is_refused():
    with pytest.raises(ValueError, match=r"top=0: write at least"):
        WritePredictions(top=0)
