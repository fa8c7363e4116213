"""The benchmarks of whole runs: every lever is a config that is read, and runs are found again."""

import json

import pytest

from pile_lightning.cli.plan import plan_parser
from pile_lightning.cli.plan_run import make_run
from pile_lightning.config import to_plain
from tests.benchmarks import recipes
from tests.benchmarks.quality.changes import read_config, write_config
from tests.benchmarks.quality.processes import RunFailedError, run_process
from tests.benchmarks.quality.records import Records
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
        pytest.param(["base", "z-loss 1e-4", "no bigram table", "value residual"], id="some"),
        pytest.param(list(recipes.ROWS), id="all", marks=pytest.mark.slow),
    ],
)
def test_every_row_is_a_config_of_its_own(tmp_path, rows):
    bench, made = make_bench(tmp_path), {}
    parser = plan_parser()
    for row in rows:
        config = write_config(bench.config(recipes.Job(row, 0, 1)), tmp_path / "config.yaml")
        run = make_run(parser, parser.parse_args(["--config", str(config)]))
        model = run.make_module()
        parts = model.network_config, model.optimizer_config, model.schedule_config
        made[row] = json.dumps([to_plain(parts), model.z_loss, bench.tokens_a_step(row)])
    assert len(set(made.values())) == len(rows)


def found(bits, seconds):
    return {"bits_per_byte": bits, "cpu_seconds_a_step": seconds, "tokens": 1}


def test_equal_time_gives_a_slower_row_fewer_steps_and_one_as_fast_the_same_run(tmp_path):
    bench = make_bench(tmp_path)
    plan = recipes.Plan(bench, ["base", "half the batch", "no tables", "SwiGLU"], [0, 1], 100)
    assert plan.equal_time("no tables", 0) is None  # not before a step was measured
    seconds = {"base": 1.0, "half the batch": 0.4, "no tables": 1.25, "SwiGLU": 1.001}
    for row, each in seconds.items():
        for seed in (0, 1):
            bits = 2 + seed + each / 10
            bench.records.add(bench.key(plan.equal_tokens(row, seed)), **found(bits, each))
    assert [plan.equal_tokens(row, 0).steps for row in plan.rows] == [100, 200, 100, 100]
    assert [plan.equal_time(row, 0).steps for row in plan.rows] == [100, 250, 80, 100]
    lines = recipes.table(plan).splitlines()
    assert lines[4].startswith("| base | 1000 | 2.6000 (0.7071) | +0.0000 (0.0000) | 100 |")
    # a difference is between runs of one seed: what seeds differ by is not in its spread
    assert "| no tables | 1250 | 2.6250 (0.7071) | +0.0250 (0.0000) | 80 |  |  |" in lines


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
