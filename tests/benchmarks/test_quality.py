"""The benchmarks of whole runs: every lever is a config that is read, and runs are found again."""

import argparse
import json
import math

import numpy as np
import pytest
import torch
from lightning import Trainer

from pile_lightning import CausalLM, DecoderConfig, TextData
from pile_lightning.cli.plan import plan_parser
from pile_lightning.cli.plan_run import make_run
from pile_lightning.config import to_plain
from tests.benchmarks import recipes, time_to_quality
from tests.benchmarks.quality import nano_gpt
from tests.benchmarks.quality.changes import read_config, write_config
from tests.benchmarks.quality.options import options
from tests.benchmarks.quality.processes import RunFailedError, run_process
from tests.benchmarks.quality.records import Records
from tests.benchmarks.quality.scoring import bits_per_byte
from tests.benchmarks.quality.trained import Scored, Trained
from tests.conftest import REPOSITORY

BASE = read_config(REPOSITORY / "configs/quickstart.yaml")
TINY = {
    "data.init_args.tokenizer": "byte",
    "data.init_args.seq_len": 32,
    "data.init_args.val_stride": 32,
    "model.init_args.compile": False,
    "model.init_args.network.init_args.d_model": 32,
    "model.init_args.network.init_args.num_layers": 1,
    "trainer.limit_val_batches": 2,
}


def make_bench(path):
    return recipes.Bench(BASE, Records(path / "found.jsonl"), path, keep=False)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(["base", "z-loss 1e-4", "no table of pairs", "value residual"], id="some"),
        pytest.param(list(recipes.ROWS), id="all", marks=pytest.mark.slow),
    ],
)
def test_every_row_is_a_config_of_its_own(tmp_path, rows):
    bench, made = make_bench(tmp_path), {}
    parser = plan_parser()
    for row in rows:
        settings = bench.config(recipes.Job(row, 0, 1))
        config = write_config(settings, tmp_path / "config.yaml")
        run = make_run(parser, parser.parse_args(["--config", str(config)]))
        model = run.make_module()
        parts = model.network_config, model.optimizer_config, model.schedule_config
        ids = torch.arange(32).view(2, 16)
        batch = {"input_ids": ids, "labels": ids, "position_ids": None, "document_ids": None}
        assert model.loss_sum(batch).isfinite()
        made[row] = json.dumps([to_plain(parts), model.z_loss, settings["data"]])
    assert len(set(made.values())) == len(rows)


def found(bits, seconds):
    return {"bits_per_byte": bits, "cpu_seconds_a_step": seconds, "tokens": 1}


def test_equal_time_gives_a_slower_row_fewer_steps_and_one_as_fast_the_same_run(tmp_path):
    bench = make_bench(tmp_path)
    plan = recipes.Plan(bench, ["base", "twice the batch", "no tables", "SwiGLU"], [0, 1], 100)
    assert plan.equal_time("no tables", 0) is None  # not before a step was measured
    seconds = {"base": 1.0, "twice the batch": 2.5, "no tables": 1.25, "SwiGLU": 1.001}
    for row, each in seconds.items():
        for seed in (0, 1):
            bits = 2 + seed + each / 10
            bench.records.add(bench.key(plan.equal_tokens(row, seed)), **found(bits, each))
    assert [plan.equal_tokens(row, 0).steps for row in plan.rows] == [100, 50, 100, 100]
    assert [plan.equal_time(row, 0).steps for row in plan.rows] == [100, 40, 80, 100]
    lines = recipes.table(plan).splitlines()
    assert lines[4].startswith("| base | 1000 | 2.6000 (0.7071) | +0.0000 (0.0000) | 100 |")
    # a difference is between runs of one seed: what seeds differ by is not in its spread
    assert "| no tables | 1250 | 2.6250 (0.7071) | +0.0250 (0.0000) | 80 |  |  |" in lines


def test_rows_are_short_for_the_same_share_of_tokens_in_a_run_of_any_length(tmp_path):
    bench = make_bench(tmp_path)
    name, until = "data.init_args.short_rows.until_tokens", 768_000  # of the base's 1,500 steps
    for row, share in ("base", 1 / 5), ("twice the batch", 2 / 5):
        assert bench.short_part(recipes.Job(row, 0, 300)) == {name: share * until}
    assert bench.short_part(recipes.Job("rows of 1,024 from the start", 0, 300)) == {}


def test_records_are_found_again_also_after_a_kill(tmp_path):
    path = tmp_path / "found.jsonl"
    Records(path).add({"row": "a"}, bits=1.0)
    with path.open("a") as file:
        file.write('{"key": {"row": "b"}, "fou')
    records = Records(path)
    assert records.find({"row": "b"}) is None
    records.add({"row": "b"}, bits=2.0)
    again = Records(path)
    assert [again.find({"row": row}) for row in "ab"] == [{"bits": 1.0}, {"bits": 2.0}]


def test_a_run_that_fails_or_hangs_is_told_and_ended(tmp_path):
    settings = {"folder": tmp_path, "environment": {}, "timeout": 1}
    with pytest.raises(RunFailedError, match=r"left with 3:\nsorry"):
        run_process(["sh", "-c", "echo sorry; exit 3"], **settings)
    with pytest.raises(RunFailedError, match="was not done after 1 s"):
        run_process(["sleep", "60"], **settings)


@pytest.mark.slow
def test_a_table_that_was_interrupted_goes_on(tmp_path, corpus, cache, monkeypatch, capsys):
    monkeypatch.setenv("PILE_CACHE", str(cache))
    tiny = {**TINY, "data.init_args.sources": str(corpus)}
    settings = [f"{name}={json.dumps(value)}" for name, value in tiny.items()]
    arguments = ["--steps=4", "--seeds", "0", f"--out={tmp_path}/found.jsonl", "--set", *settings]
    recipes.main(["--rows", "z-loss 1e-3", *arguments, "--skip_equal_time"])
    assert capsys.readouterr().out.count(" ms a step, ") == 2
    recipes.main(["--rows", "z-loss", *arguments, "--skip_equal_time", "--jobs=2"])
    out = capsys.readouterr().out
    assert out.count(" ms a step, ") == 1
    assert "| z-loss 1e-4 | " in out


@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_scores_are_those_of_a_validation(tmp_path, corpus, cache):
    data = TextData(
        str(corpus),
        tokenizer="byte",
        seq_len=32,
        val_stride=16,
        val_fraction=0.2,
        cache_dir=str(cache),
    )
    data.prepare_data()
    network = DecoderConfig(d_model=16, num_layers=1)
    model = CausalLM(network, vocab_size=data.vocab_size, max_seq_len=32).eval()
    trainer = Trainer(
        accelerator="cpu", limit_val_batches=5, logger=False, enable_progress_bar=False
    )
    (found,) = trainer.validate(model, data, verbose=False)
    scored = bits_per_byte(model, data, context=32, max_batches=5)
    assert scored == pytest.approx(found["val/bits_per_byte"], rel=1e-6)
    # uniform over 257 ids: whoever gives logits from ids alone is scored on the same bytes
    flat = bits_per_byte(
        lambda batch: torch.zeros(*batch["input_ids"].shape, data.vocab_size),
        data,
        context=32,
        max_batches=5,
    )
    assert flat == pytest.approx(math.log2(data.vocab_size), rel=0.02)


def test_the_tokens_that_others_read_are_the_prepared_ones(tmp_path, corpus, cache):
    data = TextData(str(corpus), tokenizer="byte", val_fraction=0.2, cache_dir=str(cache))
    data.prepare_data()
    folder = nano_gpt.write_tokens(data, tmp_path / "tokens")
    for split in ("train", "val"):
        tokens = np.fromfile(folder / f"{split}.bin", np.uint16)
        (stream,) = data.store.streams(split)
        assert np.array_equal(tokens, stream.read(0, stream.counts.tokens))


def test_a_place_without_nano_gpt_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="give --nanogpt its folder or git address"):
        nano_gpt.find_nano_gpt(None, tmp_path)
    with pytest.raises(FileNotFoundError, match="could not be cloned"):
        nano_gpt.find_nano_gpt(str(tmp_path / "nothing"), tmp_path)
    with pytest.raises(ValueError, match="'width' is no setting; there are n_layer"):
        options("width=3", nano_gpt.DEFAULTS)


class Steady:
    """A system that takes a second to start and a tenth for a step, slower the second time."""

    system, settings, tokens_a_step = "steady", "", 10

    def __init__(self, pace=(0.1, 0.1)):
        self.pace, self.asked = list(pace), []

    def train(self, steps, folder):
        folder.mkdir()
        self.asked.append(steps)
        step = self.pace.pop(0) if len(self.pace) > 1 else self.pace[0]
        return Trained(1 + steps * step, step, steps)

    def score(self, folder):
        return Scored(1 + 1 / self.asked[-1], parameters=3, looked_up=1)


def test_steps_fill_the_time_and_what_was_run_is_found(tmp_path):
    def make():
        records = Records(tmp_path / "found.jsonl")
        return time_to_quality.Bench(records, tmp_path, {"text": "t"}, tried_steps=20)

    steady = Steady()
    found = make().reach(steady, 11)
    assert steady.asked == [20, 100]
    assert (found["seconds"], found["tokens"], found["bits_per_byte"]) == (11, 1000, 1.01)
    assert make().reach(steady, 11) == found
    make().reach(steady, 6)  # its speed is known
    assert steady.asked == [20, 100, 50]


def test_a_run_that_missed_its_time_is_run_again_by_what_it_took(tmp_path):
    slower = Steady(pace=(0.1, 0.2, 0.2))
    records = Records(tmp_path / "found.jsonl")
    found = time_to_quality.Bench(records, tmp_path, {}, tried_steps=20).reach(slower, 11)
    assert slower.asked == [20, 100, 50]
    assert found["seconds"] == 11


def test_what_is_missing_is_told(tmp_path, capsys, corpus, cache):
    data = TextData(str(corpus), tokenizer="byte", val_fraction=0.2, cache_dir=str(cache))
    data.prepare_data()
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho No module named accelerate >&2; exit 1")
    bare.chmod(0o755)
    for python in (bare, tmp_path / "nothing"):
        settings = {"nanogpt": None, "nanogpt_settings": None, "hugging_face_settings": None}
        arguments = argparse.Namespace(
            only=["nanogpt", "hugging_face"], peers_python=str(python), **settings
        )
        assert time_to_quality.peers(arguments, tmp_path, {"data": data}) == []
    out = capsys.readouterr().out
    assert out.count("nanoGPT is missing: give --nanogpt its folder or git address") == 2
    assert "Trainer is missing: No module named accelerate under" in out
    assert "Trainer is missing: there is no " in out


@pytest.mark.slow
def test_ours_is_run_for_the_whole_time_and_for_less(tmp_path, corpus, cache, monkeypatch):
    monkeypatch.setenv("PILE_CACHE", str(cache))
    tiny = {**TINY, "data.init_args.sources": str(corpus)}
    settings = [f"{name}={json.dumps(value)}" for name, value in tiny.items()]
    arguments = ["--only", "ours", "--seconds=16", "--fractions", "1", "0.5", "--threads=1"]
    arguments += ["--tried_steps=20", "--val_batches=2", f"--out={tmp_path}/found.jsonl"]
    shown = []
    for _ in range(2):  # the second time everything is found
        time_to_quality.main([*arguments, "--set", *settings], show=shown.append)
    assert shown[0] == shown[1]
    assert shown[0].count("| ours | configs/quickstart.yaml |") == 3
